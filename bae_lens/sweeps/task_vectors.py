"""Task vectors measured (section 5.4, Fig. 6): accuracy without demonstrations, with a vector at the end, over strengths.

Half of the queries make the vectors (the good prompts show demonstrations, the bad ones none) and choose a strength; the
accuracy is of the other half. Every vector is held against no steering, random vectors of the BAE's norm, and the difference of
mean activations, which no dictionary has touched.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.labels import label_log_probs
from bae_lens.activations.prompts import TEMPLATE, Prompts, Task, Template, draw_prompts
from bae_lens.intervene.suffix import Suffix, suffix_of
from bae_lens.intervene.task_vector import adding_at_end, mean_difference, task_vector
from bae_lens.sweeps.strengths import random_directions

NO_DICTIONARY, RANDOM = "mean difference, no dictionary", "random"


class Curve(NamedTuple):
    """A vector over strengths."""

    name: str
    norm: float
    kept: int
    """Features that it is made of; 0 where it is made of none."""
    making: list[float]
    """Accuracy at each strength on the queries that made the vector."""
    accuracy: list[float]
    """Accuracy at each strength on the other queries."""

    def chosen(self) -> int:
        """The place of the strength that is best where the vector was made; the first of equals."""
        return max(range(len(self.making)), key=self.making.__getitem__)


class TaskSweep(NamedTuple):
    """Task vectors of one task at one hook point."""

    task: str
    hook_name: str
    shots: int
    strengths: list[float]
    zero_shot: float
    """Accuracy without demonstrations and without steering."""
    few_shot: float
    """Accuracy with demonstrations."""
    queries: int
    """Prompts that the accuracies are of."""
    curves: list[Curve]
    """Dictionaries first, in the order in which they were given; then the mean difference, and random vectors."""

    def recovered(self, curve: Curve) -> float:
        """Share of the gap between no demonstrations and some that a vector closes, at its chosen strength."""
        return (curve.accuracy[curve.chosen()] - self.zero_shot) / (self.few_shot - self.zero_shot)


class TaskPrompts(NamedTuple):
    """The prompts of a sweep."""

    good: Prompts
    """With demonstrations, of the queries that make the vectors."""
    bad: Prompts
    """Of the same queries, without."""
    few_shot: Prompts
    """With demonstrations, of the other queries."""
    zero_shot: Prompts
    """Of these, without."""
    making: Task
    test: Task


def task_prompts(
    model: Any, task: Task, *, shots: int, samples: int = 512, seed: int = 0, template: Template = TEMPLATE
) -> TaskPrompts:
    """Draws the prompts: good and bad ones of half of the queries, and those to measure on of the other half.

    Args:
        samples: Prompts of each kind at most; queries come again where there are fewer, but not in prompts without
            demonstrations, which would only be copies.

    Raises:
        ValueError: If there are fewer than two queries, the queries have one label, or no prompt fits the context.
    """
    if shots < 1 or samples < 1:
        raise ValueError(f"shots and samples must be at least 1, got {shots} and {samples}")
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(task.queries), generator=random).tolist()
    if len(order) < 2 or len({query.label for query in task.queries}) < 2:
        raise ValueError(
            f"{task.name} has {len(order)} queries of {len({q.label for q in task.queries})} labels: two are needed"
        )
    making, test = (task._replace(queries=[task.queries[i] for i in order[side::2]]) for side in (0, 1))

    def draw(part: Task, demonstrations: int) -> Prompts:
        count = samples if demonstrations else min(samples, len(part.queries))
        return draw_prompts(
            part, demonstrations, random, tokenizer=model.tokenizer, context=model.cfg.n_ctx, count=count, template=template
        )

    return TaskPrompts(draw(making, shots), draw(making, 0), draw(test, shots), draw(test, 0), making, test)


def task_curves(
    model: Any,
    saes: Mapping[str, SAE[Any]],
    prompts: TaskPrompts,
    *,
    strengths: Sequence[float],
    keep: int = 256,
    random: int = 3,
    seed: int = 0,
    hook_name: str | None = None,
    made: Callable[[str], dict[str, Any] | None] = lambda name: None,
    keep_curve: Callable[[Curve], None] = lambda curve: None,
) -> list[Curve]:
    """The curve of each dictionary, of the mean difference, and of random vectors as long as the first dictionary's.

    Args:
        saes: Dictionaries by name; all at one hook point.
        made: What an earlier run has of a curve, as `Curve._asdict`.
        keep_curve: Called with each new curve.

    Raises:
        ValueError: If the SAEs belong to different hook points, or one does not belong to the model (see `task_vector`).
    """
    suffix = shared_suffix(model, saes, hook_name)
    good, bad = prompts.good.texts, prompts.bad.texts
    cache: dict[bytes, Tensor] = {}

    def vector_of(name: str, sae: SAE[Any]) -> tuple[Tensor, int]:
        vector = task_vector(model, sae, good=good, bad=bad, keep=keep, hook_name=suffix.hook_name)
        return vector.direction, len(vector.features)

    curves: list[Curve] = []

    def add(name: str, vector: Callable[[], tuple[Tensor, int]]) -> None:
        known = made(name)
        curves.append(Curve(**known) if known else _curve(suffix, prompts, name, *vector(), strengths, cache))
        if not known:
            keep_curve(curves[-1])

    for name, sae in saes.items():
        add(name, lambda name=name, sae=sae: vector_of(name, sae))
    add(NO_DICTIONARY, lambda: (mean_difference(model, suffix.hook_name, good=good, bad=bad), 0))
    width = next(iter(saes.values())).cfg.d_in
    for number, direction in enumerate(random_directions(curves[0].norm, width, random, seed)):
        add(f"{RANDOM} {number}", lambda direction=direction: (direction, 0))
    return curves


def shared_suffix(model: Any, saes: Mapping[str, SAE[Any]], hook_name: str | None = None) -> Suffix:
    """The model from the hook point on at which all SAEs stand.

    Raises:
        ValueError: If there is no SAE, they belong to different hook points, or one does not belong to the model.
    """
    if not saes:
        raise ValueError("no SAE given to make task vectors with")
    suffixes = {name: suffix_of(model, sae, hook_name or sae.cfg.metadata.hook_name) for name, sae in saes.items()}
    if len({suffix.hook_name for suffix in suffixes.values()}) > 1:
        said = ", ".join(f"{name} at {suffix.hook_name}" for name, suffix in suffixes.items())
        raise ValueError(f"these SAEs belong to different hook points: {said}; task vectors are compared at one")
    return next(iter(suffixes.values()))


def accuracy(
    model: Any,
    task: Task,
    prompts: Prompts,
    suffix: Suffix | None = None,
    vector: Float[Tensor, " d_in"] | None = None,
    cache: dict[bytes, Tensor] | None = None,
) -> float:
    """How often the likeliest label (summed log-probability of its tokens) is right, with a vector at the last token."""
    forward = None if suffix is None or vector is None else adding_at_end(suffix, vector, cache)
    found = label_log_probs(model, prompts.texts, task.labels, forward=forward).argmax(1)
    wanted = torch.tensor([task.labels.index(task.queries[query].label) for query in prompts.query])
    return (found == wanted).double().mean().item()


def _curve(
    suffix: Suffix,
    prompts: TaskPrompts,
    name: str,
    vector: Tensor,
    kept: int,
    strengths: Sequence[float],
    cache: dict[bytes, Tensor],
) -> Curve:
    def sweep(task: Task, part: Prompts) -> list[float]:
        return [accuracy(suffix.model, task, part, suffix, strength * vector, cache) for strength in strengths]

    making, test = sweep(prompts.making, prompts.bad), sweep(prompts.test, prompts.zero_shot)
    return Curve(name, vector.norm().item(), kept, making, test)
