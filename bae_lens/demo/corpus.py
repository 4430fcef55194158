"""The embedded corpus: the prose of CPython's own documentation, read at run time from the interpreter that runs this.

Every interpreter carries it: the language reference in `pydoc_data/topics.py` and the docstrings of the standard library's
modules, read from source with `ast`, so that nothing is imported or executed. Nothing of it is stored in this package.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bae_lens.activations.text import Split, read_documents, split_documents

TOPICS = "pydoc_data.topics"
HELD_OUT_SHARE = 0.06
MIN_PARAGRAPH = 40
"""Characters; what is shorter ("Return None.") is no prose, and would stand in both splits."""
MIN_DOCUMENT = 200
NOT_PROSE = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__", "ensurepip"}


class Document(NamedTuple):
    """The prose of one module, or one topic of the language reference."""

    module: str
    """Dotted name of the module (or of the topic) that the text comes from."""
    text: str
    """Its docstrings in source order, separated by blank lines."""


class Corpus(NamedTuple):
    """The embedded corpus, split."""

    train: list[str]
    """Documents of the training modules, one a module."""
    held_out: list[str]
    """Documents of the other modules: no top-level package is in both, and no paragraph either."""


def python_docs(stdlib: Path | None = None) -> Corpus:
    """Reads the prose of CPython's documentation, split by top-level module.

    Args:
        stdlib: Directory of the standard library; the running interpreter's own if not given.

    Raises:
        FileNotFoundError: If that directory holds no Python source with docstrings (a stripped installation).
    """
    root = stdlib or Path(sysconfig.get_path("stdlib"))
    documents = list(_documents(root))
    if not documents:
        raise FileNotFoundError(
            f"{root} holds no Python sources with docstrings: this interpreter was installed without them. "
            "Give a text file instead (--text)."
        )
    train = [d for d in documents if not is_held_out(d.module)]
    seen = {paragraph for d in train for paragraph in d.text.split("\n\n")}
    held_out = [_without(d, seen) for d in documents if is_held_out(d.module)]
    return Corpus([d.text for d in train], [d.text for d in held_out if len(d.text) >= MIN_DOCUMENT])


def split_text(path: str | Path | None, seed: int = 0) -> Split:
    """The documents of a text file, split at random; of the embedded corpus, split by module, where none is given.

    Raises:
        ValueError, FileNotFoundError: As `read_documents`, `split_documents` and `python_docs`.
    """
    if path is None:
        return Split(*python_docs())
    return split_documents(read_documents(path), seed=seed)


def is_held_out(module: str) -> bool:
    """Whether a module is in the held-out split: a hash of its top-level name, the same on every machine and version."""
    top = module.split(".")[0].lstrip("_")
    if top == TOPICS.split(".")[0]:
        return False  # the topics quote each other, so they stay on one side
    return hashlib.sha256(top.encode()).digest()[0] < 256 * HELD_OUT_SHARE


def _documents(root: Path) -> Iterator[Document]:
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if NOT_PROSE.intersection(relative.parts[:-1]) or relative.name.startswith("_sysconfigdata"):
            continue
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and deliberately broken files live among the sources
        for text in _topics(tree) if module == TOPICS else ["\n\n".join(_docstrings(tree))]:
            paragraphs = [p.strip() for p in text.split("\n\n")]
            fresh = [p for p in dict.fromkeys(paragraphs) if len(p) >= MIN_PARAGRAPH and p not in seen]
            seen.update(fresh)
            if sum(map(len, fresh)) >= MIN_DOCUMENT:
                yield Document(module, "\n\n".join(fresh))


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def _topics(tree: ast.Module) -> Iterator[str]:
    """The strings of `pydoc_data/topics.py`: one dictionary literal, topic to text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for value in node.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def _without(document: Document, paragraphs: set[str]) -> Document:
    kept = [p for p in document.text.split("\n\n") if p not in paragraphs]
    return Document(document.module, "\n\n".join(kept))
