"""Nothing in the package unpickles or runs what a file says: its source is scanned for whatever could."""

import ast
from pathlib import Path

import pytest

import bae_lens

PACKAGE = Path(bae_lens.__file__).parent
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "code", "codeop"}
"""That unpickle or run code; importing any of them is refused, but for the names in `HARMLESS`."""
HARMLESS = {("pickle", "UnpicklingError")}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"read_pickle", "to_pickle", "from_pickle", "unpack_archive", "extractall", "unsafe_load", "full_load", "load_module"}
LOADS = {"torch": "weights_only", "np": "allow_pickle", "numpy": "allow_pickle"}
"""Modules whose `load` may unpickle, and the argument that forbids it."""


def problems(source: str) -> list[str]:
    """What in a module's source could unpickle or run what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        found += [f"line {node.lineno}: {what}" for what in _of(node)] if isinstance(node, ast.stmt | ast.expr) else []
    return found


def _of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in MODULES]
    if isinstance(node, ast.ImportFrom):
        root = (node.module or "").split(".")[0]
        return [f"from {node.module} import {a.name}" for a in node.names if root in MODULES and (root, a.name) not in HARMLESS]
    return _of_call(node) if isinstance(node, ast.Call) else []


def _of_call(call: ast.Call) -> list[str]:
    said = {keyword.arg: keyword.value for keyword in call.keywords}
    found = []
    trusted = said.get("trust_remote_code")
    if trusted is not None and not (isinstance(trusted, ast.Constant) and trusted.value is False):
        found.append("trust_remote_code")
    allowed = said.get("allow_pickle")
    if allowed is not None and not (isinstance(allowed, ast.Constant) and allowed.value is False):
        found.append("allow_pickle")
    if isinstance(call.func, ast.Name):
        return found + ([f"{call.func.id}()"] if call.func.id in BUILTINS else [])
    if not isinstance(call.func, ast.Attribute):
        return found
    name, owner = call.func.attr, call.func.value
    if name in METHODS:
        found.append(f".{name}()")
    if name == "load" and isinstance(owner, ast.Name):
        needed, value = LOADS.get(owner.id), said.get(LOADS.get(owner.id, ""))
        wanted = needed == "weights_only"
        is_safe = isinstance(value, ast.Constant) and value.value is wanted
        if owner.id == "yaml" or (needed is not None and not is_safe and (wanted or value is not None)):
            found.append(f"{owner.id}.load()")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_module_unpickles_or_runs_what_a_file_says(path):
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.numpy_pickle as j",
        "from pickle import loads",
        "from marshal import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "yaml.load(text, Loader)",
        "pandas.read_pickle(path)",
        "eval(text)",
        "exec(text)",
        "shutil.unpack_archive(path)",
        "archive.extractall()",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "def f():\n    x = [pickle_free for y in eval('1')]",
    ],
)
def test_the_scan_finds(source):
    assert problems(source)


@pytest.mark.parametrize(
    "source",
    [
        "from pickle import UnpicklingError",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "model.eval()",
        "json.load(file)",
        "AutoModel.from_pretrained(name, trust_remote_code=False)",
        "re.compile('x')",
    ],
)
def test_the_scan_lets_pass(source):
    assert not problems(source)
