"""More-bit decoding (section 6, Table 2): features of C = 1, 2, 3, 4 bits, at d'/C = 4d features and at d' = 4d bits.

A cell trains one BAE and is a file, so that a job that was stopped goes on with the cells that lack.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.statistics import code_statistics
from bae_lens.cells import CellDirectory, whole
from bae_lens.checks import check_known
from bae_lens.comsem import RulesBackend, StudyOptions, collect, interpret, prepare, sentence_windows
from bae_lens.model.bae import BAE
from bae_lens.model.config import MAX_BITS_PER_FEATURE
from bae_lens.model.more_bit import CODES
from bae_lens.training.config import Recipe
from bae_lens.training.recipes import recommended
from bae_lens.training.trainer import train

WIDTHS = ("features", "bits")
"""What is the same for every C: d'/C = 4d features, as in Table 2, or d' = 4d bits."""
ACTIVATED = 9
"""In the ten burstiest features of at least so many of 8,192 vectors: Table 1's "more than 8 instances"."""
COMSEM_TOKENS = 8192
COUNTED, MEASURED = 100_000, 65_536
"""Vectors that frequencies are counted on, and that figures are measured on, at most."""


@dataclass(kw_only=True)
class MoreBitOptions:
    """What `bae-lens more-bit` takes."""

    activations: Path
    """Directory of activations; a share of its documents is held out."""
    out: Path
    """Directory for cells and tables."""
    hook: str | None = None
    """Hook point; needed where the directory holds several."""
    bits: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    """C: bits a feature."""
    codes: list[str] = field(default_factory=lambda: ["powers"])
    """How C bits make a feature: "powers" of two (Eq. 7), "nested"."""
    entropy_weight: float = 0.1
    steps: int = 3000
    """Training steps of 512 vectors."""
    seed: int = 0
    device: str = "cpu"
    model: str | None = None
    text: Path | None = None
    """With a model, the columns of ComSem: rules name features on this text, which should not be that of the activations."""

    def __post_init__(self) -> None:
        for name in ("bits", "codes"):
            values = list(dict.fromkeys(getattr(self, name)))
            if not values:
                raise ValueError(f"the list of {name} is empty: give at least one")
            setattr(self, name, values)
        for code in self.codes:
            check_known("code", code, CODES)
            for c in self.bits:
                if not 1 <= c <= MAX_BITS_PER_FEATURE[code]:
                    raise ValueError(f"bits a feature must be from 1 to {MAX_BITS_PER_FEATURE[code]} ({code}), got {c}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if (self.model is None) != (self.text is None):
            raise ValueError("ComSem needs --model and --text together: a model, and text to name features on")


class Cell(NamedTuple):
    """One BAE."""

    code: str
    same: str
    """One of `WIDTHS`."""
    c: int

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.code}/{self.same}/C{self.c}"

    def recipe(self, d_in: int, options: MoreBitOptions) -> Recipe:
        """How it is trained."""
        return recommended(
            d_in,
            4 if self.same == "features" else 4 / self.c,
            bits_per_feature=self.c,
            code=self.code,
            entropy_weight=options.entropy_weight,
            steps=options.steps,
            seed=options.seed,
            device=options.device,
        )


class Measured(NamedTuple):
    """A cell's figures, all held out."""

    features: int
    bits: int
    loss: float
    """L_r as the paper prints it: mean squared error a dimension, in the units of the activations."""
    fvu: float
    entropy: float
    """Marginal entropy of the bits, in bits a token."""
    code_bits: float
    """Held-out code length under frequencies of the training set, in bits a token."""
    activated: int
    interpretable: int | None = None
    """FI: named by rules with a score over 0."""
    score: float | None = None
    """Mean ComSem score of rules."""

    def describe(self) -> str:
        """In a line."""
        named = "" if self.score is None else f", {self.interpretable} named at a mean score of {self.score:.3f}"
        return (
            f"{self.features} features of {self.bits} bits, FVU {self.fvu:.4f} at {self.entropy:.1f} bits a token "
            f"(code length {self.code_bits:.1f}), {self.activated} activated{named}"
        )


def cells(options: MoreBitOptions) -> Iterator[Cell]:
    """All of them. Where C = 1 codes and widths are one: it is made once."""
    for code in options.codes:
        for same in WIDTHS:
            for c in options.bits:
                if c > 1 or (code, same) == (options.codes[0], WIDTHS[0]):
                    yield Cell(code, same, c)


def run_more_bit(options: MoreBitOptions, say: Callable[[str], None] = print) -> dict[Cell, Measured]:
    """Trains and measures the cells that `options.out` does not hold yet; all of them.

    Raises:
        ValueError: If the directory holds another job, or the activations have several hook points and none is named.
        FileNotFoundError: If there are no activations, no model or no text.
    """
    data = ActivationDataset(options.activations, options.hook)
    known, held_out = data.split(seed=0)
    chosen = {
        "activations": f"{options.activations.name}, {len(data)} vectors",
        "hook": data.hook_name,
        **{name: getattr(options, name) for name in ("entropy_weight", "steps", "seed")},
        "comsem": options.text.name if options.text else None,
    }
    _check_named(options)
    directory = CellDirectory.open(options.out, "more-bit", chosen)
    found, counted, measured = {}, known.tensor(COUNTED), held_out.tensor(MEASURED)
    for cell in cells(options):
        values = directory.read(cell.name)
        if values is None:
            recipe = cell.recipe(data.d_in, options)
            bae = train(known, recipe, metadata={"hook_name": data.hook_name}).bae
            values = measure(bae, counted, measured, options)._asdict()
            directory.write(cell.name, values)
        found[cell] = Measured(**values)
        say(f"{cell.name}: {found[cell].describe()}")
    return found


def _check_named(options: MoreBitOptions) -> None:
    """Says that there is no such model or text before the first BAE is trained, and not when it is named."""
    if options.model is None or options.text is None:
        return
    from bae_lens.activations.models import load_model
    from bae_lens.activations.text import read_documents

    read_documents(options.text)
    load_model(options.model, device=options.device)


def read_results(directory: CellDirectory) -> dict[Cell, Measured]:
    """All cells of a directory.

    Raises:
        ValueError: If a file is not a whole cell.
    """
    found = {}
    for name in directory.names():
        with whole(directory.cell(name)):
            code, same, c = name.split("/")
            found[Cell(code, same, int(c.removeprefix("C")))] = Measured(**(directory.read(name) or {}))
    return found


def measure(bae: BAE, known: Float[Tensor, "a d_in"], held_out: Float[Tensor, "b d_in"], options: MoreBitOptions) -> Measured:
    """The figures of a BAE."""
    stats, length = code_statistics(bae, held_out), code_length(bae, known, held_out)
    with torch.no_grad():
        squared = sum((bae(x.to(bae.device)).cpu() - x).double().square().sum().item() for x in held_out.split(4096))
    seen = collect(bae, held_out[:COMSEM_TOKENS], progress=False).seen
    found = Measured(
        features=bae.cfg.d_sae,
        bits=bae.d_bits,
        loss=squared / held_out.numel(),
        fvu=stats.fvu,
        entropy=stats.entropy,
        code_bits=length.bits,
        activated=int((seen >= ACTIVATED).sum()),
    )
    return found if options.text is None else found._replace(**_comsem(bae, options))


def _comsem(bae: BAE, options: MoreBitOptions) -> dict[str, Any]:
    from bae_lens.activations.harvest import harvest
    from bae_lens.activations.models import load_model
    from bae_lens.activations.text import read_documents

    assert options.model is not None
    assert options.text is not None
    model = load_model(options.model, device=options.device)
    documents = read_documents(options.text)
    windows = sentence_windows(model.tokenizer, documents, min(256, model.cfg.n_ctx), tokens=COMSEM_TOKENS)
    activations = harvest(model, windows, bae.cfg.metadata.hook_name, progress=False)
    study = prepare(bae, activations, windows, model.tokenizer, StudyOptions(least=ACTIVATED), progress=False)
    with tempfile.TemporaryDirectory(prefix="bae_lens-") as directory:
        found = interpret(study, RulesBackend(study.background), journal=Path(directory) / "journal.jsonl").summary
    return {"interpretable": found.interpretable, "score": found.score}


def table(found: dict[Cell, Measured]) -> str:
    """Table 2 as Markdown: a part for each code and what is the same for all C."""
    from tabulate import tabulate

    parts = []
    heads = ["C", "features", "d'", "L_r", "FVU", "H, bits", "code, bits", "Act.", "FI", "score"]
    for code, same in dict.fromkeys((cell.code, cell.same) for cell in found):
        rows = []
        for cell, value in found.items():
            if (cell.code, cell.same) == (code, same) or cell.c == 1:
                numbers = [f"{value.loss:.4g}", f"{value.fvu:.4f}", f"{value.entropy:.1f}", f"{value.code_bits:.1f}"]
                comsem = ["" if value.interpretable is None else value.interpretable]
                comsem.append("" if value.score is None else f"{value.score:.3f}")
                rows.append([cell.c, value.features, value.bits, *numbers, value.activated, *comsem])
        what = "d'/C = 4d features" if same == "features" else "d' = 4d bits"
        body = tabulate(sorted(rows), heads, tablefmt="github", disable_numparse=True)
        parts.append(f"{code}, {what}\n\n{body}")
    return "\n\n".join(parts)
