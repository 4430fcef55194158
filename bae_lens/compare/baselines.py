"""SAELens' own SAEs, trained by SAELens' own trainer on the same activations, for the same steps."""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import (
    SAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import SAEMetadata, TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from bae_lens.checks import check_known
from bae_lens.training.config import TrainerConfig
from bae_lens.training.data import as_source
from bae_lens.training.inference import own_generators
from bae_lens.training.normalization import fit_normalization
from bae_lens.training.schedules import Schedule, in_steps

Start = Literal["saelens", "data"]


class Baseline(NamedTuple):
    """An SAE of SAELens and the one setting that says how sparse it is."""

    architecture: str
    setting: str
    value: float


def standard(l1_coefficient: float = 1.0) -> Baseline:
    """ReLU with an L1 penalty: SAELens' StandardTrainingSAE."""
    return Baseline("standard", "l1_coefficient", l1_coefficient)


def topk(k: int) -> Baseline:
    """SAELens' TopKTrainingSAE."""
    return Baseline("topk", "k", k)


def batchtopk(k: float) -> Baseline:
    """SAELens' BatchTopKTrainingSAE, k features a vector on average; it is used as the JumpReLU SAE that SAELens saves."""
    return Baseline("batchtopk", "k", k)


def jumprelu(l0_coefficient: float = 1.0) -> Baseline:
    """SAELens' JumpReLUTrainingSAE: learnt thresholds and a penalty on the number of features that are on."""
    return Baseline("jumprelu", "l0_coefficient", l0_coefficient)


def gated(l1_coefficient: float = 1.0) -> Baseline:
    """SAELens' GatedTrainingSAE: a gate that decides which features are on, and a magnitude that shares its weights."""
    return Baseline("gated", "l1_coefficient", l1_coefficient)


def matryoshka(k: float) -> Baseline:
    """SAELens' MatryoshkaBatchTopKTrainingSAE, nested at 1/8, 1/4 and 1/2 of its width; used as `batchtopk` is."""
    return Baseline("matryoshka_batchtopk", "k", k)


CONFIGS = {
    "standard": StandardTrainingSAEConfig,
    "topk": TopKTrainingSAEConfig,
    "batchtopk": BatchTopKTrainingSAEConfig,
    "jumprelu": JumpReLUTrainingSAEConfig,
    "gated": GatedTrainingSAEConfig,
    "matryoshka_batchtopk": MatryoshkaBatchTopKTrainingSAEConfig,
}
LEAST_MATRYOSHKA = 8
"""Features that an SAE needs to be nested three times."""


def sae_trainer(steps: int, seed: int = 0, device: str = "cpu") -> TrainerConfig:
    """How all of SAELens' SAEs are trained: at 5e-3 each of them needed fewer bits at equal FVU than at 2e-3."""
    schedule = Schedule(shape="wsd", warm_up=min(200, steps // 5), decay=0.3)
    return TrainerConfig(steps=steps, learning_rate=5e-3, learning_rate_schedule=schedule, seed=seed, device=device)


def train_baseline(
    baseline: Baseline,
    activations: Float[Tensor, "samples d_in"],
    d_sae: int,
    trainer: TrainerConfig,
    metadata: dict[str, Any] | None = None,
    reshape_activations: Literal["none", "hook_z"] = "none",
    start: Start = "saelens",
) -> SAE[Any]:
    """Trains one of SAELens' SAEs on raw activations, as long as a BAE's trainer would, and gives its inference SAE.

    It sees the activations centred and rescaled as a BAE does, folded into its weights at the end by SAELens itself.

    Args:
        start: Where the weights begin: "saelens", where SAELens puts them, or "data", at directions of activations
            (`start_from_data`).

    Raises:
        TypeError, ValueError: If the architecture is not known here or its setting out of range, or as `bae_lens.train`.
    """
    check_baseline(baseline, d_sae)
    as_source(activations, "cpu").check(activations.shape[-1], trainer.batch_size)
    d_in = activations.shape[1]
    norm = fit_normalization(activations, trainer)
    data = ((activations - norm.mean.to(activations.dtype)) * norm.scale).float()
    cfg = CONFIGS[baseline.architecture](
        d_in=d_in,
        d_sae=d_sae,
        device=trainer.device,
        reshape_activations=reshape_activations,
        metadata=SAEMetadata(**(metadata or {})),
        **{baseline.setting: baseline.value},
        **_nesting(baseline, d_sae),
    )
    with own_generators(trainer.device):
        torch.manual_seed(trainer.seed)
        sae = get_sae_training_class(baseline.architecture)[0](cfg)
        if start == "data":
            start_from_data(sae, data)
    steps, schedule = trainer.total_steps(len(activations)), trainer.learning_rate_schedule
    SAETrainer(
        SAETrainerConfig(
            total_training_samples=steps * trainer.batch_size,
            train_batch_size_samples=trainer.batch_size,
            lr=trainer.learning_rate,
            lr_end=trainer.learning_rate / 10,
            lr_warm_up_steps=min(round(in_steps(schedule.warm_up, steps)), steps // 4),
            lr_decay_steps=round(in_steps(schedule.decay, steps)) if schedule.shape == "wsd" else 0,
            device=trainer.device,
            dead_feature_window=min(1000, max(1, steps // 10)),
        ),
        sae,
        _batches(data, trainer),
    ).fit()
    eye = torch.eye(d_in, dtype=torch.float64)
    sae.fold_activation_whitening(norm.mean, eye * norm.scale, eye / norm.scale)
    return inference(sae)


@torch.no_grad()
def start_from_data(sae: TrainingSAE[Any], centred: Float[Tensor, "samples d_in"]) -> None:
    """Encoder and decoder begin at the directions of randomly drawn activations, the decoder's rows as long as they were.

    At d' = 16d and few steps it leaves fewer features dead: TopK of 5, 500 steps, has 198 instead of 559 of 2,048, at an FVU of
    .087 instead of .111 (`blocks.1.hook_resid_pre` of a Llama of 128 dimensions).
    """
    drawn = centred[torch.randint(len(centred), (sae.cfg.d_sae,))].to(sae.W_dec)
    directions = drawn / drawn.norm(dim=1, keepdim=True).clamp(min=torch.finfo(drawn.dtype).tiny)
    sae.W_dec.copy_(directions * sae.W_dec.norm(dim=1, keepdim=True))
    sae.W_enc.copy_(directions.T)


def check_baseline(baseline: Baseline, d_sae: int) -> None:
    """Raises ValueError unless it is known here, and its setting can be that of an SAE of so many features."""
    check_known("baseline", baseline.architecture, CONFIGS)
    if d_sae < 1:
        raise ValueError(f"an SAE needs at least one feature, got d_sae = {d_sae}")
    least, most = (1, d_sae) if baseline.setting == "k" else (0, math.inf)
    if not least <= baseline.value <= most:
        allowed = f"from 1 to d_sae = {d_sae}" if baseline.setting == "k" else "at least 0"
        raise ValueError(f"{baseline.setting} of {baseline.architecture} must be {allowed}, got {baseline.value:g}")
    if baseline.architecture == "matryoshka_batchtopk" and d_sae < LEAST_MATRYOSHKA:
        raise ValueError(f"a matryoshka SAE needs at least {LEAST_MATRYOSHKA} features to nest, got d_sae = {d_sae}")


def inference(sae: Any) -> SAE[Any]:
    """The inference SAE of a trained one, without a detour over the disk."""
    state = sae.state_dict()
    sae.process_state_dict_for_saving_inference(state)
    found = SAE.from_dict(sae.cfg.get_inference_sae_cfg_dict())
    found.process_state_dict_for_loading(state)
    found.load_state_dict(state)
    return found


def _nesting(baseline: Baseline, d_sae: int) -> dict[str, Any]:
    is_nested = baseline.architecture == "matryoshka_batchtopk"
    return {"matryoshka_widths": [d_sae // 8, d_sae // 4, d_sae // 2, d_sae]} if is_nested else {}


def _batches(data: Tensor, trainer: TrainerConfig) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(trainer.seed)
    while True:
        order = torch.randperm(len(data), generator=generator)
        yield from (data[rows] for rows in order[: len(data) - len(data) % trainer.batch_size].split(trainer.batch_size))
