"""Shows which tools work with a BAE: `python benchmarks/works_with/run.py [tool ...]` runs each in an environment of its own.

The first run of a tool makes its environment (torch first and by exact version, then the tool, pinned, and this checkout);
later runs reuse it. A row a tool is printed: its version, what was run, "pass" or the reason, and the seconds of its script.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

from common import add_arguments

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Environment(NamedTuple):
    """What is installed for a tool."""

    tool: str
    """The tool, pinned."""
    alone: tuple[str, ...] = ()
    """Installed without their dependencies, as these do not go together with bae_lens'; empty: the tool brings its own."""
    beside: tuple[str, ...] = ()
    """Installed with their dependencies: those of the tool that its script needs."""
    note: str = ""
    """What a reader of the table has to know about the installation."""


class Tool(NamedTuple):
    """A script and where it runs."""

    script: str
    environment: str


ENVIRONMENTS = {
    "saebench": Environment(
        "sae-bench==0.6.0",
        alone=("sae-bench==0.6.0",),
        beside=(
            *(
                "beartype",
                "collectibles>=0.1.5",
                "datasets>=3,<4",
                "matplotlib",
                "numpy<2",
                "openai",
                "pandas",
                "plotly",
                "pyarrow<22",
            ),
            *("pydantic", "scikit-learn", "seaborn", "tabulate"),
        ),
        note="--no-deps: torchvision and sae-probes are left out",
    ),
    # scikit-learn says that 1.10 will not take the `penalty` any more that sae-probes passes
    "sae-probes": Environment("sae-probes==0.4.2", beside=("scikit-learn<1.10",)),
    "sae-dashboard": Environment(
        "sae-dashboard==0.8.0",
        alone=("sae-dashboard==0.8.0", "decode-clt==0.0.1"),
        beside=(
            *("dataclasses-json>=0.6.4,<0.7", "datasets>=3,<4", "eindex-callum", "hf-transfer", "matplotlib", "wandb"),
            *("rich>=13.7.1,<14", "typer>=0.12.3,<0.13"),
        ),
        note="--no-deps: it asks for transformer-lens < 3 and transformers < 4.57",
    ),
    "delphi": Environment(
        "eai-delphi==0.1.3",
        alone=("eai-delphi==0.1.3",),
        beside=(
            *("aiofiles", "anyio", "asyncer", "beartype", "blobfile", "datasets", "eai-sparsify", "faiss-cpu", "fire", "flask"),
            *("httpx", "orjson", "sentence-transformers", "simple-parsing", "tiktoken"),
        ),
        note="--no-deps: vllm (stood in for at import) and bitsandbytes are left out; its tokenizer decodes token by token",
    ),
}
TOOLS = {
    "saebench-core": Tool("saebench_core.py", "saebench"),
    "saebench-autointerp": Tool("saebench_autointerp.py", "saebench"),
    "sae-probes": Tool("sae_probes_eval.py", "sae-probes"),
    "sae-dashboard": Tool("sae_dashboard_page.py", "sae-dashboard"),
    "delphi": Tool("delphi_explain.py", "delphi"),
}


def main() -> int:
    args = parse()
    args.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.tools or TOOLS:
        rows.append(run_tool(name, args))
        print(markdown(rows[-1:]), flush=True)
    print("\n" + markdown(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(row["result"] != "pass" for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="*", metavar="tool", help=f"all if none is given: {', '.join(TOOLS)}")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "works_with", help="where the environments lie")
    add_arguments(parser)
    args = parser.parse_args()
    unknown = [name for name in args.tools if name not in TOOLS]
    if unknown:
        parser.error(f"no such tool: {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    for path in (args.model, args.text):
        if not path.exists():
            parser.error(f"{path} does not exist: give --model and --text, or set BAE_LENS_TEST_DATA to the test data's folder")
    return args


def run_tool(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The row of one tool, whatever happens to it."""
    tool = TOOLS[name]
    wanted = ENVIRONMENTS[tool.environment]
    output = args.cache / f"{name}.json"
    log = args.cache / f"{name}.log"
    output.unlink(missing_ok=True)
    row = {"name": name, "tool": wanted.tool, "ran": "", "seconds": 0.0, "figures": {}}
    try:
        python = environment(tool.environment, args.cache)
        bae = args.bae or trained_bae(python, args)
    except subprocess.CalledProcessError as error:
        return {**row, "result": f"not installed or no BAE trained: {error.cmd[:4]} ended with status {error.returncode}"}
    command = [str(python), str(HERE / tool.script), "--model", args.model, "--text", args.text, "--bae", bae, "--json", output]
    with log.open("w", encoding="utf-8") as out:
        status = subprocess.run([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    if not output.exists():
        return {**row, "result": f"ended with status {status} and no result, see {log}"}
    row |= json.loads(output.read_text(encoding="utf-8"))
    return {**row, "note": wanted.note}


def environment(name: str, cache: Path) -> Path:
    """The Python of an environment, which is made where it is missing or was made for something else."""
    wanted = ENVIRONMENTS[name]
    folder = cache / "environments" / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    constraints = ROOT / "constraints.txt"
    recipe = json.dumps([wanted, constraints.read_text(encoding="utf-8"), sys.version])
    made = folder / "made.json"
    if made.exists() and made.read_text(encoding="utf-8") == recipe:
        return python
    print(f"making the environment of {name} in {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    (torch,) = [line for line in constraints.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    subprocess.run([*pip, torch], check=True)  # first: a CPU build at hand then serves all that follows
    whole = () if wanted.alone else (wanted.tool,)
    subprocess.run([*pip, "-c", str(constraints), "-e", str(ROOT), *wanted.beside, *whole], check=True)
    if wanted.alone:
        subprocess.run([*pip, "--no-deps", *wanted.alone], check=True)
    made.write_text(recipe, encoding="utf-8")
    return python


def trained_bae(python: Path, args: argparse.Namespace) -> Path:
    """A BAE trained on the model and text with `bae-lens demo`, once for all tools."""
    out = args.cache / "story"
    if not (out / "bae" / "cfg.json").exists():
        print("training a BAE with `bae-lens demo`", flush=True)
        where = ["--model", str(args.model), "--text", str(args.text), "--hook", "blocks.1.hook_resid_pre"]
        command = [str(python), "-m", "bae_lens", "demo", *where, "--out", str(out), "--replace"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out / "bae"


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, a line a tool; with its head where there is more than one."""
    lines = (
        []
        if len(rows) == 1
        else ["| tool | what was run | result | installation | seconds |", "| --- | --- | --- | --- | --- |"]
    )
    for row in rows:
        version = row["tool"] if "==" in row["tool"] else f"{row['tool']} {row['version']}"
        cells = (f"{row['name']} ({version})", row["ran"], row["result"], row.get("note") or "plain", row["seconds"])
        lines.append("| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
