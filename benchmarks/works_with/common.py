"""What every script here shares: its arguments, the model, text and BAE that it measures on, and the row that it prints."""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
DATA = Path(os.environ.get("BAE_LENS_TEST_DATA", "data"))


class Setup(NamedTuple):
    """What is measured on."""

    model: Any
    bae: Any
    documents: list[str]
    scratch: Path
    """A folder for what the tool writes; it is removed at the end."""
    args: argparse.Namespace

    @property
    def hook_name(self) -> str:
        """The hook point that the BAE was trained at."""
        return self.bae.cfg.metadata.hook_name


class Finding(NamedTuple):
    """What came of running a tool."""

    ran: str
    """Which of the tool's own functions, on what."""
    figures: dict[str, Any]
    complaints: list[str]
    """Why it does not pass; none: it passes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that the driver and every script take."""
    parser.add_argument("--model", type=Path, default=DATA / "story-llama", help="a Llama in Hugging Face's format")
    parser.add_argument("--text", type=Path, default=DATA / "text" / "stories.generated.txt", help="a document a line")
    parser.add_argument("--bae", type=Path, help="a BAE trained on that model and text, as `bae-lens demo` saves it")
    parser.add_argument("--json", type=Path, help="also write what is printed, with all figures, to this file")


def run_script(distribution: str, description: str | None, check: Callable[[Setup], Finding], model_class: str = "") -> None:
    """Runs one tool's check as a script: prints its row and leaves with status 0 for a pass, 1 otherwise."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    args = parser.parse_args()
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            finding = check(load(args, Path(scratch), model_class))
    except Exception as error:  # the reason belongs in the table, whatever it is
        traceback.print_exc()
        finding = Finding("stopped by an exception", {}, [f"{type(error).__name__}: {error}"])
    row = {
        "tool": distribution,
        "version": version(distribution),
        "ran": finding.ran,
        "result": "; ".join(finding.complaints) or "pass",
        "figures": finding.figures,
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(row, indent=2))
    if args.json:
        args.json.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    sys.exit(bool(finding.complaints))


def load(args: argparse.Namespace, scratch: Path, model_class: str) -> Setup:
    """The model, the text and the BAE that the arguments name."""
    import sae_lens
    import torch

    import bae_lens  # registers "bae" with SAELens

    torch.manual_seed(0)
    if args.bae is None:
        raise ValueError("--bae is missing: the directory of a saved BAE (run.py trains one if none is given)")
    model = bae_lens.load_model(args.model, *([getattr(sae_lens, model_class)] if model_class else []), device="cpu")
    bae = sae_lens.SAE.load_from_disk(str(args.bae), device="cpu")
    return Setup(model, bae, bae_lens.read_documents(args.text), scratch, args)


def full_windows(setup: Setup, context_size: int, n_tokens: int | None = None) -> Any:
    """Windows of tokens without padding, each with BOS in front ``(window, context_size)``; at most so many tokens in all."""
    import bae_lens

    windows = bae_lens.tokenize(setup.model.tokenizer, setup.documents, context_size)
    tokens = windows.tokens[windows.lengths == context_size]
    return tokens if n_tokens is None else tokens[: n_tokens // context_size]
