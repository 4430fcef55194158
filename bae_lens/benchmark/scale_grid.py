"""Many BAEs as one batched computation beside the same BAEs one after another, in one run, for several shapes."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.training.recipes import recommended
from bae_lens.training.together import Training, pays, train_together
from bae_lens.training.trainer import Trained, train

VECTORS = 20_000
"""For each BAE to train on."""
RANK = 16
"""Directions that the vectors are sums of, beside noise."""


class Shape(NamedTuple):
    """A grid."""

    baes: int
    d_in: int
    d_sae: int
    batch_size: int
    steps: int


GOAL = Shape(32, 128, 512, 512, 100)
"""The grid that a goal is set for; so many steps on a CPU, more on a GPU."""
SMALL = (Shape(32, 16, 64, 128, 200), Shape(32, 32, 128, 256, 100), Shape(32, 64, 256, 512, 60))
LARGE = (Shape(32, 512, 2048, 512, 60), Shape(8, 2048, 8192, 512, 40))
GOALS = {"cpu": 1.0, "cuda": 3.0}


def grid_table(
    device: str = "cpu",
    shapes: Sequence[Shape] | None = None,
    *,
    rounds: int = 2,
    baes: int | None = None,
    steps: int | None = None,
) -> Iterator[dict[str, Any]]:
    """A row a shape: seconds of both, how many times faster together is, and how far their results are apart.

    Args:
        rounds: The BAEs take turns in so many parts: on a shared machine a ratio of neighbours means something.
        baes, steps: Instead of the shapes' own.
    """
    goal = GOAL if device == "cpu" else GOAL._replace(steps=500)
    for shape in shapes or (goal, *(SMALL if device == "cpu" else LARGE)):
        measured = shape._replace(baes=baes or shape.baes, steps=steps or shape.steps)
        yield _row(measured, device, rounds, GOALS[device] if shape == goal else None)


def _row(shape: Shape, device: str, rounds: int, goal: float | None) -> dict[str, Any]:
    trainings = [_training(shape, device, seed) for seed in range(shape.baes)]
    for warm in (_alone, _together):  # what is compiled or loaded once is not timed
        warm([t._replace(recipe=_recipe(shape._replace(steps=3), device, 0)) for t in trainings[:2]])
    took = {"alone": 0.0, "together": 0.0}
    fvu: dict[str, list[float]] = {"alone": [], "together": []}
    for part in torch.arange(shape.baes).chunk(rounds):
        lot = [trainings[number] for number in part.tolist()]
        for name, run in (("alone", _alone), ("together", _together)):
            begin = _now(device)
            found = run(lot)
            took[name] += _now(device) - begin
            fvu[name] += [one.history[-1].fvu for one in found]
    apart = max(abs(a - b) for a, b in zip(fvu["alone"], fvu["together"], strict=True))
    chosen = pays(trainings[0].recipe)
    ratio = took["alone"] / took["together"]
    return {
        "BAEs": shape.baes,
        "d": shape.d_in,
        "d'": shape.d_sae,
        "batch": shape.batch_size,
        "steps": shape.steps,
        "one by one, s": took["alone"],
        "together, s": took["together"],
        "times faster": ratio,
        "chosen": "together" if chosen else "one by one",
        "as chosen": ratio if chosen else 1.0,
        "goal": goal,
        "largest difference of FVU": apart,
    }


def _recipe(shape: Shape, device: str, seed: int) -> Any:
    recipe = recommended(
        shape.d_in, shape.d_sae / shape.d_in, steps=shape.steps, batch_size=shape.batch_size, seed=seed, device=device
    )
    return recipe


def _training(shape: Shape, device: str, seed: int) -> Training:
    return Training(_vectors(shape.d_in, seed), _recipe(shape, device, seed))


def _vectors(d_in: int, seed: int) -> Float[Tensor, "vectors d_in"]:
    """Sparse sums of directions, and noise."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(4 * RANK, d_in, generator=generator)
    on = (torch.rand(VECTORS, 4 * RANK, generator=generator) < 0.25).float()
    return on @ directions + 0.3 * torch.randn(VECTORS, d_in, generator=generator)


def _alone(trainings: Sequence[Training]) -> list[Trained]:
    return [train(training.activations, training.recipe, progress=False) for training in trainings]


def _together(trainings: Sequence[Training]) -> list[Trained]:
    found = train_together(trainings, progress=False, always=True)
    for outcome in found:
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome for outcome in found if isinstance(outcome, Trained)]


def _now(device: str) -> float:
    """Seconds: of this process alone on a CPU, which others may share."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
