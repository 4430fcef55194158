"""Appendix B (Fig. 11): hidden states whose entropy is known not to be over r bits, those of random sequences of two tokens.

A sequence is BOS and r tokens, each one of two with equal chance; the hidden state is that of its last token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from bae_lens.activations.harvest_options import weights_fingerprint
from bae_lens.activations.models import find_hook_point, hook_shape, load_model
from bae_lens.activations.prompts import padded_windows
from bae_lens.cells import CellDirectory
from bae_lens.jobs import Job, Say, run_jobs
from bae_lens.pictures.charts import Axis, Chart, Line, Panel, Point
from bae_lens.settings import as_json
from bae_lens.traces.last_token import save_last_token
from bae_lens.traces.measure import prompt_cell
from bae_lens.traces.positions import Trace
from bae_lens.traces.rows import Row, read_rows
from bae_lens.traces.training import CellTraining, settings_of


@dataclass(kw_only=True)
class TwoTokenOptions(CellTraining):
    """What `bae-lens two-tokens` takes. Every combination of r and expansions is a cell."""

    model: str
    """Model directory or name."""
    recipe: str = "synthetic"
    """Few values, each common: the bits of "recommended" start seldom on, and double many times over here (docs/traces.md)."""
    hook: str
    """Hook point; the paper's is layer 12 of Llama 3.2 1B, blocks.12.hook_resid_pre."""
    r: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
    """Tokens a sequence, and so the most bits that a hidden state can carry."""
    expansions: list[float] = field(default_factory=lambda: [4.0])
    """Features a dimension."""
    tokens: tuple[int, int] = (0, 1)
    """Ids of the two tokens."""
    sequences: int = 65_536
    """Sequences of each length."""
    held_out: float = 0.2
    batch_size: int = 32
    """Sequences a forward pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.r, self.expansions = sorted(set(self.r)), sorted(set(self.expansions))
        if not self.r or self.r[0] < 1 or not self.expansions:
            raise ValueError(f"r are lengths of at least one token, got {self.r} and expansions {self.expansions}")
        if len(set(self.tokens)) != 2:
            raise ValueError(f"two tokens that differ are needed, got {self.tokens}")


def two_token_sequences(
    r: int, count: int, tokens: tuple[int, int], bos: int, generator: torch.Generator
) -> Int[Tensor, "count tokens"]:
    """BOS and r tokens, each one of the two with equal chance: r bits of entropy."""
    bits = torch.randint(2, (count, r), generator=generator)
    return torch.cat([torch.full((count, 1), bos), torch.tensor(tokens)[bits]], 1)


def run_two_tokens(options: TwoTokenOptions, say: Say = print) -> Trace:
    """Harvests, trains and measures the cells that `options.out` does not hold yet; all rows of the directory.

    Raises:
        ValueError: If the hook point does not exist (near names are said), a token is not in the vocabulary, a sequence is
            longer than the context, or the directory holds another trace or cells of other settings.
        FileNotFoundError: If there is no such model.
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
    """
    model = load_model(options.model, device=options.device)
    find_hook_point(model, options.hook)
    _check(options, model)
    directory = CellDirectory.open(options.out, "two tokens", _shared(options, model))
    train = round((1 - options.held_out) * options.sequences)
    width = torch.Size(hook_shape(model, options.hook)).numel()
    jobs = []
    for r in options.r:
        generator = torch.Generator().manual_seed(options.seed)
        sequences = two_token_sequences(r, options.sequences, options.tokens, model.tokenizer.bos_token_id, generator)
        path = options.out / "activations" / f"r{r}"
        windows = padded_windows(sequences.tolist())
        (source,) = save_last_token(path, model, windows, [options.hook], train=train, batch_size=options.batch_size)
        for expansion in options.expansions:
            recipe = options.recipe_at(width, expansion)
            name = f"{options.hook}/r{r}-x{expansion:g}"
            place = {"hook": options.hook, "r": r, "features": recipe.sae.d_sae}
            jobs.append(Job(name, prompt_cell, (source, place, recipe, options.place_of(name)), settings_of(recipe)))
    del model
    failures = run_jobs(directory, jobs, processes=options.processes, say=say)
    return Trace(read_rows(directory), failures)


def two_tokens_chart(rows: Sequence[Row]) -> Chart:
    """Fig. 11: entropy against r, a line a number of features."""
    ranks = sorted({row.place["r"] for row in rows})
    lines: dict[int, list[Point]] = {}
    for row in sorted(rows, key=lambda row: (row.place["features"], row.place["r"])):
        point = Point(row.place["r"], row.figures["entropy"], row.figures["fvu"], about=row.about)
        lines.setdefault(row.place["features"], []).append(point)
    most = Line("r bits: no hidden state carries more", [Point(r, r) for r in ranks], "guide")
    top = max([*ranks, *(row.figures["entropy"] for row in rows)])
    return Chart(
        name="two_tokens",
        title=f"Sequences of two tokens, {rows[0].place['hook']}",
        x=Axis("r, tokens a sequence", 2, tuple(ranks)),
        y=Axis("marginal entropy, bits", 2, tuple(2.0**k for k in range(-1, math.ceil(math.log2(top)) + 1))),
        panels=[Panel("", [most, *(Line(str(features), points) for features, points in lines.items())])],
        legend="features",
    )


def _check(options: TwoTokenOptions, model: Any) -> None:
    if max(options.r) + 1 > model.cfg.n_ctx:
        raise ValueError(
            f"r = {max(options.r)} and BOS are longer than the model's context of {model.cfg.n_ctx}: leave it out of r"
        )
    if not all(0 <= token < model.cfg.d_vocab for token in options.tokens):
        raise ValueError(f"the model's tokens are 0 to {model.cfg.d_vocab - 1}, got {options.tokens}")
    batch = options.recipe_at(model.cfg.d_model).trainer.batch_size
    if options.sequences * (1 - options.held_out) < batch:
        raise ValueError(f"{options.sequences} sequences leave fewer to train on than a batch of {batch}: give more")


def _shared(options: TwoTokenOptions, model: Any) -> dict[str, Any]:
    """The settings that all cells of a directory share; r and expansions may be added."""
    names = ("tokens", "sequences", "held_out", "seed")
    identity = f"{Path(options.model).name}, weights {weights_fingerprint(model)}"
    return as_json({"model": identity, **{name: getattr(options, name) for name in names}})
