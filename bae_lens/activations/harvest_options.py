"""What can be chosen of a harvest, checked, and as the settings that a harvest taken up must share."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bae_lens.activations.readers import Reader
from bae_lens.activations.sequences import Layout
from bae_lens.activations.sources import TextSource
from bae_lens.checks import check_known
from bae_lens.version import __version__

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CONTEXT = 1024
"""Tokens a sequence where nothing else is asked, or the model's context where that is shorter."""
BATCH_TOKENS = {"cpu": 2048}
"""What fits a CPU's caches is fastest there."""
PACKAGES = ("torch", "transformers", "transformer-lens", "tokenizers", "safetensors", "datasets")


@dataclass(frozen=True, kw_only=True)
class HarvestOptions:
    """What can be chosen of a harvest; `Layout` says more of the first ones."""

    positions: Sequence[int] | str = "all"
    """Places of a sequence, "all", or "last": the last token of each document. BOS is at 0."""
    layout: str = "padded"
    """"padded", a document a sequence, long ones cut; or "packed", documents one after another."""
    context_size: int | None = None
    """Tokens a sequence at most, BOS counted; by default up to the last of the positions, else 1,024 or the model's context."""
    prepend_bos: bool = True
    keep_bos: bool = False
    min_tokens: int | None = None
    """Leave out shorter sequences; by default those that do not reach the last of the positions."""
    tokens: int | None = None
    """Vectors a hook point at most, those of all processes; None for all of the text."""
    dtype: str = "fp32"
    """"fp32", "fp16" or "bf16", on disk."""
    seed: int | None = None
    """Take the documents in a random order among 10,000 neighbours; None keeps theirs."""
    batch_tokens: int | None = None
    """Tokens a forward pass at most, padding counted; by default 2,048 on a CPU and 16,384 on a GPU."""
    shard_bytes: int = 2**28
    """Bytes of a shard, all hook points together; as much memory is held."""
    model_name: str | None = None
    """To be written down; by default what the model says."""
    revision: str | None = None
    """Of the model, to be written down."""

    def __post_init__(self) -> None:
        check_known("dtype", self.dtype, DTYPES)
        for name in ("tokens", "context_size", "min_tokens", "batch_tokens", "shard_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def layout_for(self, context: int, device: torch.device) -> Layout:
        """The layout for a model with a context of so many tokens, on a device.

        Raises:
            ValueError: If a position, or the context that is asked for, is beyond it.
        """
        chosen = self.positions if isinstance(self.positions, str) else tuple(self.positions)
        last = -1 if isinstance(chosen, str) else max(chosen, default=-1)
        if last >= context:
            raise ValueError(
                f"position {last} is beyond the model's context of {context} tokens: its last position is {context - 1}"
            )
        if self.context_size is not None and self.context_size > context:
            raise ValueError(f"a context of {self.context_size} tokens is longer than the model's, which has {context}")
        by_default = min(CONTEXT, context) if isinstance(chosen, str) else max(last + 1, 1 + self.prepend_bos)
        shortest = 1 if isinstance(chosen, str) else last + 1 - self.prepend_bos
        return Layout(
            context_size=self.context_size or by_default,
            layout=self.layout,
            positions=chosen,
            prepend_bos=self.prepend_bos,
            keep_bos=self.keep_bos,
            min_tokens=self.min_tokens or max(1, shortest),
            batch_tokens=self.batch_tokens or BATCH_TOKENS.get(device.type, 16_384),
        )


def harvest_settings(
    options: HarvestOptions, layout: Layout, reader: Reader, model: Any, source: TextSource, widths: dict[str, int], world: int
) -> dict[str, Any]:
    """All that decides which vectors come out, as JSON values."""
    return {
        "model": options.model_name or model_name(model),
        "revision": options.revision or getattr(getattr(model, "config", None), "_commit_hash", None),
        "weights": weights_fingerprint(model),
        "read_as": reader.kind,
        "hooks": widths,
        "text": {"name": source.name, "fingerprint": source.fingerprint},
        **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(layout).items()},
        "tokens": options.tokens,
        "dtype": options.dtype,
        "seed": options.seed,
        "shard_bytes": options.shard_bytes,
        "world_size": world,
    }


def harvest_versions() -> dict[str, str]:
    """Of this package and of those that have a say in the vectors."""
    return {"bae_lens": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}}


def model_name(model: Any) -> str:
    """What a model says that it is called."""
    for owner, field in ((getattr(model, "cfg", None), "model_name"), (model, "name_or_path")):
        if getattr(owner, field, None):
            return str(getattr(owner, field))
    return type(model).__name__


def weights_fingerprint(model: Any) -> str:
    """What tells a model's weights from others, by the first numbers of each."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        first = parameter.detach().flatten()[:64].float().cpu().numpy().tobytes()
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode() + first)
    return digest.hexdigest()[:16]
