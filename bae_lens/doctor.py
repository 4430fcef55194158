"""Looks at the machine and the environment: versions, devices, offline state, and what is wrong with each, with a fix.

It imports nothing of this package, so that it runs where `import bae_lens` fails: ``python -P bae_lens/doctor.py``.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import netrc
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

OK, NOTE, BROKEN = "ok", "note", "broken"
PACKAGE = "bae-lens"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge", "msedge")
GIB = 2**30
LITTLE_DISK, LITTLE_MEMORY = 2 * GIB, GIB
OFF = ("", "0", "false", "no", "off")
WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")


class Finding(NamedTuple):
    """One thing that was looked at."""

    area: str
    """"versions", "devices", "network", "logging", "disk" or "tools"."""
    name: str
    value: str
    """What it is, in words."""
    status: str = OK
    """"ok"; "note": it works, but less well or with less than it could; "broken": something will fail."""
    fix: str = ""
    """What to try, where it is not "ok"."""


def examine() -> list[Finding]:
    """Looks at everything. Sends nothing, writes nothing, and says no key."""
    return [*_versions(), *_devices(), *_threads(), *_memory(), *_network(), *_logging(), *_disk(), *_tools()]


def describe(findings: Sequence[Finding]) -> str:
    """The findings as lines, area by area, each fix below what it mends; a sentence at the end."""
    lines: list[str] = []
    for area in dict.fromkeys(finding.area for finding in findings):
        lines.append(f"\n{area}")
        for finding in (finding for finding in findings if finding.area == area):
            lines.append(f"  {finding.status:<7} {finding.name}: {finding.value}")
            lines += [f"          try: {finding.fix}"] * bool(finding.fix)
    broken, notes = (sum(finding.status == status for finding in findings) for status in (BROKEN, NOTE))
    if broken:
        end = f'{broken} broken: mend the lines that begin with "broken", then run `bae-lens doctor` again.'
    else:
        end = "Nothing is broken. Next: bae-lens demo"
    could = f' What could be better: {notes}, marked "note".' if notes else ""
    return "\n".join([*lines, "", end + could]).lstrip()


def is_broken(findings: Sequence[Finding]) -> bool:
    """Whether something will fail."""
    return any(finding.status == BROKEN for finding in findings)


def _versions() -> Iterator[Finding]:
    area = "versions"
    found = f"{platform.python_version()} ({sys.executable})"
    supported = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding(area, "python", found, *(() if supported else (BROKEN, "Python 3.11 to 3.13")))
    yield Finding(area, "platform", platform.platform())
    try:
        needed = importlib.metadata.requires(PACKAGE) or []
        yield Finding(area, PACKAGE, importlib.metadata.version(PACKAGE))
    except importlib.metadata.PackageNotFoundError:
        yield Finding(area, PACKAGE, "not installed, so what it needs is not known", NOTE, "pip install -e . in its directory")
        return
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Finding(area, "packaging", "missing, so versions cannot be compared", NOTE, "pip install packaging")
        return
    requirements = [Requirement(line) for line in needed]
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _requirement(requirement, BROKEN)
    for extra in importlib.metadata.metadata(PACKAGE).get_all("Provides-Extra") or []:
        of_extra = [r for r in requirements if r.marker is not None and not r.marker.evaluate({"extra": ""})]
        of_extra = [r for r in of_extra if r.marker is not None and r.marker.evaluate({"extra": extra})]
        lacking = [found.name for found in (_requirement(r, NOTE) for r in of_extra) if found.status != OK]
        if lacking:
            yield Finding(area, f"extra {extra}", f"without {', '.join(lacking)}", NOTE, f"pip install '{PACKAGE}[{extra}]'")
        else:
            yield Finding(area, f"extra {extra}", "complete")


def _requirement(requirement: Any, otherwise: str) -> Finding:
    fix = f"pip install '{requirement.name}{requirement.specifier}'"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("versions", requirement.name, "missing", otherwise, fix)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding("versions", requirement.name, f"{version}, needed {requirement.specifier}", otherwise, fix)
    return Finding("versions", requirement.name, version)


def _devices() -> Iterator[Finding]:
    area = "devices"
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a library that it links to may be missing, or of another version
        yield Finding(
            area, "torch", f"cannot be imported: {error}", BROKEN, "install it again: https://pytorch.org/get-started"
        )
        return
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    if torch.version.cuda is None:
        fix = "a torch for CUDA: https://pytorch.org/get-started"
        yield Finding(area, "cuda", "this torch is a CPU build", *((NOTE, fix) if has_gpu else ()))
    elif not torch.cuda.is_available():
        fix = "a newer driver, or a torch for the CUDA version that `nvidia-smi` shows"
        value = f"torch for CUDA {torch.version.cuda} sees no GPU"
        yield Finding(area, "cuda", value, *((BROKEN, fix) if has_gpu else ()))
    else:
        yield from _gpus(torch)
        yield _triton()
    if getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available():
        yield Finding(area, "mps", "is there, and was never tried", NOTE, "--device cpu")


def _gpus(torch: Any) -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        name = f"cuda:{index}"
        try:
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as error:
            yield Finding("devices", name, f"does not answer: {error}", BROKEN, "nvidia-smi, and --device with another one")
            continue
        major, minor = torch.cuda.get_device_capability(index)
        value = f"{torch.cuda.get_device_name(index)}, sm_{major}{minor}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
        yield Finding("devices", name, value, *((NOTE, "nvidia-smi shows who holds the rest") if free < total / 4 else ()))


def _triton() -> Finding:
    if os.environ.get("BAE_LENS_TRITON") == "0":
        return Finding("devices", "triton", "switched off by BAE_LENS_TRITON=0", NOTE, "unset BAE_LENS_TRITON")
    if importlib.util.find_spec("triton") is None:
        return Finding("devices", "triton", "missing: training on the GPU is slower", NOTE, "pip install triton")
    return Finding("devices", "triton", importlib.metadata.version("triton"))


def _threads() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        threads = importlib.import_module("torch").get_num_threads()
    except Exception:  # said above
        return
    variable = os.environ.get("OMP_NUM_THREADS")
    value = f"{threads} of torch on {cores} cores{f', OMP_NUM_THREADS={variable}' if variable else ''}"
    asked = int(variable) if variable and variable.isdigit() else 0
    waiting = (NOTE, f"export OMP_NUM_THREADS={cores}: more threads than cores wait for each other")
    yield Finding("devices", "threads", value, *(waiting if max(threads, asked) > cores else ()))


def _memory() -> Iterator[Finding]:
    try:
        memory = importlib.import_module("psutil").virtual_memory()
    except ImportError:
        return  # it is among the requirements
    limit = Path("/sys/fs/cgroup/memory.max")
    said = limit.read_text().strip() if limit.is_file() else "max"
    inside = f"; this container may use {int(said) / GIB:.1f}" if said.isdigit() and int(said) < memory.total else ""
    value = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free{inside}"
    yield Finding(
        "devices", "memory", value, *((NOTE, "end other programs, or --tokens") if memory.available < LITTLE_MEMORY else ())
    )


def _network() -> Iterator[Finding]:
    said = {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)}
    is_offline = any(value.lower() not in OFF for value in said.values())
    shown = ", ".join(f"{name}={value}" for name, value in said.items()) or "HF_HUB_OFFLINE is not set"
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repositories = sum(1 for entry in cache.glob("*--*") if entry.is_dir())
    if is_offline:
        yield Finding(
            "network", "hub", f"offline ({shown}): names come from the cache, paths and the embedded default always work"
        )
    else:
        yield Finding("network", "hub", f"online ({shown}): models and data sets by name are fetched")
    yield Finding("network", "cache", f"{repositories} repositories in {cache}", *_unwritable(cache, "HF_HOME"))


def _logging() -> Iterator[Finding]:
    mode = os.environ.get("WANDB_MODE", "")
    if importlib.util.find_spec("wandb") is None:
        yield Finding("logging", "wandb", "not installed; runs log to metrics.jsonl")
    elif mode and mode not in WANDB_MODES:
        yield Finding("logging", "wandb", f"WANDB_MODE={mode}", NOTE, f"one of {', '.join(WANDB_MODES)}")
    elif mode in ("offline", "disabled", "dryrun"):
        yield Finding("logging", "wandb", f"WANDB_MODE={mode}: sends nothing")
    elif os.environ.get("WANDB_API_KEY") or _has_login("api.wandb.ai"):
        yield Finding("logging", "wandb", "online, with a key; used only by recipes that ask for it")
    else:
        fix = "`wandb login`, or export WANDB_MODE=offline"
        yield Finding("logging", "wandb", "online, without a key: a run that logs to wandb would ask for one", NOTE, fix)
    has_board = importlib.util.find_spec("tensorboard") is not None
    yield Finding("logging", "tensorboard", "installed" if has_board else "not installed; runs log to metrics.jsonl")


def _has_login(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _disk() -> Iterator[Finding]:
    for name, place in (("here", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(place).free
        trouble = _unwritable(place, None if name == "here" else "TMPDIR")
        if not trouble and free < LITTLE_DISK:
            trouble = (NOTE, "another disk: --out DIR" if name == "here" else "export TMPDIR=DIR on another disk")
        yield Finding("disk", name, f"{free / GIB:.1f} GiB free at {place}", *trouble)


def _unwritable(place: Path, variable: str | None) -> tuple[str, ...]:
    """Status and fix where a directory, or the nearest one above it that is there, cannot be written."""
    there = next((parent for parent in (place, *place.parents) if parent.exists()), Path("/"))
    if os.access(there, os.W_OK):
        return ()
    return NOTE, f"{there} cannot be written: {f'export {variable}=DIR' if variable else 'give --out DIR to commands'}"


def _tools() -> Iterator[Finding]:
    llama = Path(__file__).parent / "demo" / "llama"
    whole = all((llama / name).is_file() for name in ("config.json", "tokenizer.json")) and any(llama.glob("*.safetensors"))
    trouble = (BROKEN, f"install again: pip install --force-reinstall --no-deps {PACKAGE}")
    yield Finding("tools", "embedded Llama", str(llama) if whole else f"not whole in {llama}", *(() if whole else trouble))
    topics = Path(sysconfig.get_path("stdlib")) / "pydoc_data" / "topics.py"
    if topics.is_file():
        yield Finding("tools", "embedded corpus", str(topics.parents[1]))
    else:
        fix = "a Python with its sources, or --text FILE with --model DIR"
        yield Finding("tools", "embedded corpus", "this Python was installed without its sources", BROKEN, fix)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    fix = "a Chromium, for the tests that open reports; the reports themselves need none here"
    yield Finding("tools", "browser", browser or "no Chromium on the path", *(() if browser else (NOTE, fix)))


def main(argv: Sequence[str]) -> int:
    """Prints what was found, as JSON with --json; 1 where something is broken."""
    findings = examine()
    print(json.dumps([finding._asdict() for finding in findings], indent=1) if "--json" in argv else describe(findings))
    return int(is_broken(findings))


if __name__ == "__main__":
    sys.path = [place for place in sys.path if place != str(Path(__file__).parent)]  # its neighbours are no top-level modules
    sys.exit(main(sys.argv[1:]))
