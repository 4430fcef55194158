"""Task vectors of features (section 5.4): what good prompts turn on and bad ones do not, decoded, put into the last token.

h_D = mean code of the good prompts' last tokens - that of the bad ones'; all but the `keep` largest |h_D| set to 0; the vector
is h_D W_dec, and strength x vector is added at the last token (Fig. 6).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.labels import Forward
from bae_lens.activations.text import Windows
from bae_lens.intervene.suffix import (
    Prompts,
    Suffix,
    activations_of,
    logits_from,
    rows_of,
    suffix_at,
    suffix_of,
    token_windows,
)

BATCH = 32


class TaskVector(NamedTuple):
    """A direction made of features, as `task_vector` makes it."""

    direction: Float[Tensor, " d_in"]
    """The difference of the kept features, decoded; without the decoder's bias."""
    features: Int[Tensor, " kept"]
    """The kept features, the largest absolute difference first."""
    difference: Float[Tensor, " kept"]
    """Mean activation in the good prompts minus that in the bad ones."""
    kept_share: float
    """Share of the summed absolute differences that is kept."""
    hook_name: str

    def edits(self, strength: float = 1.0) -> dict[int, float]:
        """What `bae_lens.steer` takes: with positions="last" it adds strength x `direction` at a prompt's last token."""
        return {f: strength * d for f, d in zip(self.features.tolist(), self.difference.tolist(), strict=True)}

    @property
    def norm(self) -> float:
        """Length of `direction`."""
        return self.direction.norm().item()


@torch.no_grad()
def task_vector(
    model: Any, sae: SAE[Any], *, good: Prompts, bad: Prompts, keep: int = 256, hook_name: str | None = None
) -> TaskVector:
    """The task vector of two sets of prompts, made of an SAE's features at the prompts' last tokens.

    Args:
        good: Prompts in which the model knows the task, as those with demonstrations.
        bad: Prompts in which it does not.
        keep: At most so many features, those of the largest absolute difference of the mean activation.
        hook_name: Another hook point than the metadata's.

    Raises:
        ValueError: If the SAE does not belong to the model, a set is empty, a prompt is longer than the context, or both sets
            have the same mean code.

    Examples:
        >>> import bae_lens
        >>> from bae_lens.demo import demo_model_dir
        >>> model = bae_lens.load_model(demo_model_dir())
        >>> bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=512))
        >>> bae.cfg.metadata.hook_name = "blocks.1.hook_resid_pre"
        >>> good, bad = ["one: 1 two: 2 three:"], ["three:"]
        >>> vector = bae_lens.task_vector(model, bae, good=good, bad=bad, keep=16)
        >>> with bae_lens.steer(model, bae, vector.edits(1.5), positions="last"):
        ...     logits = model("four:")
        >>> vector.direction.shape, len(vector.features)
        (torch.Size([128]), 16)
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1 feature, got {keep}")
    suffix = suffix_of(model, sae, hook_name)
    difference = (_mean_code(suffix, sae, good, "good") - _mean_code(suffix, sae, bad, "bad")).float()
    size = difference.abs()
    kept = size.argsort(descending=True, stable=True)[:keep]
    kept = kept[size[kept] > 0]
    if not len(kept):
        raise ValueError("the good and the bad prompts have the same mean code: there is no task vector between them")
    direction = difference[kept].to(sae.W_dec.dtype) @ sae.W_dec[kept]
    share = (size[kept].sum() / size.sum()).item()
    return TaskVector(direction.float().cpu(), kept.cpu(), difference[kept].cpu(), share, suffix.hook_name)


@torch.no_grad()
def mean_difference(model: Any, hook_name: str, *, good: Prompts, bad: Prompts) -> Float[Tensor, " d_in"]:
    """The same without a dictionary: mean activation of the good prompts' last tokens minus that of the bad ones'."""
    suffix = suffix_at(model, hook_name)
    sets = [_windows(model, prompts, name) for name, prompts in (("good", good), ("bad", bad))]
    means = [torch.cat([x.flatten(1).double() for x in _last_activations(suffix, windows)]).mean(0) for windows in sets]
    return (means[0] - means[1]).float().cpu()


def adding_at_end(suffix: Suffix, vector: Float[Tensor, " d_in"], cache: dict[bytes, Tensor] | None = None) -> Forward:
    """What `label_log_probs` takes as `forward`: the model with a vector added at the last token of each prompt.

    Args:
        cache: Where activations before the hook point are kept between calls that run the same windows.
    """
    cache = {} if cache is None else cache

    def forward(windows: Windows, prompt_lengths: Tensor) -> Tensor:
        key = windows.tokens.numpy().tobytes()
        if key not in cache:
            cache[key] = activations_of(suffix, windows)
        moved = cache[key].clone()
        rows = torch.arange(len(moved), device=moved.device)
        moved[rows, prompt_lengths.to(moved.device) - 1] += vector.to(moved).view(suffix.shape)
        return logits_from(suffix, moved, windows.tokens)

    return forward


def _mean_code(suffix: Suffix, sae: SAE[Any], prompts: Prompts, name: str) -> Float[Tensor, " d_sae"]:
    windows = _windows(suffix.model, prompts, name)
    total = sum(sae.encode(last).double().sum(0) for last in _last_activations(suffix, windows))
    assert isinstance(total, Tensor)
    return total / len(windows.tokens)


def _windows(model: Any, prompts: Prompts, name: str) -> Windows:
    if not isinstance(prompts, str) and len(prompts) == 0:
        raise ValueError(f"the {name} set is empty: a task vector needs prompts of both kinds")
    return token_windows(model, prompts)


def _last_activations(suffix: Suffix, windows: Windows) -> Iterator[Float[Tensor, "prompt *shape"]]:
    """What passes the hook point at the last token of each prompt, batch by batch."""
    for index in windows.lengths.argsort(stable=True).split(BATCH):
        part = rows_of(windows, index)
        activations = activations_of(suffix, part)
        yield activations[torch.arange(len(activations)), part.lengths.to(activations.device) - 1]
