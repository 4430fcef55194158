"""The options that all commands have which train many BAEs with one recipe."""

import argparse
from pathlib import Path
from typing import Any

from bae_lens.commands.parser import field_value


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.add_argument("--recipe", default="recommended", help="name of a recipe (%(default)s)")
    parser.add_argument("--expansion", type=float, default=4.0, help="features a dimension (%(default)s)")
    parser.add_argument("--steps", type=int, help="training steps a BAE (default: the recipe's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the recipe to set anew")
    parser.add_argument("--processes", type=int, help="BAEs to train at once (default: one a core, one on a GPU)")
    parser.add_argument("--keep", action="store_true", help="save each BAE, in baes/ of the directory")
    parser.add_argument("--device", default="cpu")


def training_options(args: argparse.Namespace, *others: str) -> dict[str, Any]:
    """What was given of all options, as keywords.

    Args:
        others: Options of the command that are no keywords.
    """
    left_out = ("run", "traceback", "set", *others)
    given = {name: value for name, value in vars(args).items() if name not in left_out}
    return {**given, "changes": dict(map(field_value, args.set))}


def whole_numbers(text: str) -> list[int]:
    """A list as in "1,2,4"."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"whole numbers between commas, as in 1,2,4; got {text!r}") from None


def numbers(text: str) -> list[float]:
    """A list as in "0.1,0.2"."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers between commas, as in 0.1,0.2; got {text!r}") from None


def names(text: str) -> list[str]:
    """A list of names between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def named_labels(text: str) -> dict[str, str]:
    """Labels and what they are called, as in "0=negative,1=positive"."""
    pairs = [part.partition("=") for part in names(text)]
    if not all(label and equals and name for label, equals, name in pairs):
        raise argparse.ArgumentTypeError(f"labels and their names, as in 0=negative,1=positive; got {text!r}")
    return {label.strip(): name.strip() for label, _, name in pairs}


def said(paths: list[Path], failed: int) -> str:
    """Where the results are."""
    line = f"Saved to {paths[0].parent}: {', '.join(path.name for path in paths)}"
    return line if not failed else f"{line}\n{failed} cells failed (see above); the same command again tries them once more"
