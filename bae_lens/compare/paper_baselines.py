"""The paper's own baselines (A.4) by its formulas: ReLU SAE (Eqs. 8, 9), Top-k SAE (10, 11), Gated ReLU SAE (12 to 14).

None has an encoder bias, raw vectors go in, and the L1 term is summed over the minibatch and the channels, as printed; L_r is
averaged over the minibatch and the dimensions, the unit that the paper's weights belong to (see the recipe `paper`). Each is
given back as the SAE of SAELens that computes the same.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor, nn
from tqdm.auto import tqdm

from bae_lens.checks import check_known
from bae_lens.training.config import TrainerConfig
from bae_lens.training.data import as_source
from bae_lens.training.schedules import Schedule

ALPHA = 1e-7
"""Weight of the L1 term (Eqs. 9, 14, 16)."""
K = 15
"""Features that a Top-k SAE keeps (Eq. 10)."""
GATE = 0.5
"""Threshold of a Gated ReLU (Eq. 13)."""
SETTINGS = {"relu_paper": "alpha", "gated_relu_paper": "alpha", "topk_paper": "k"}
"""The paper's baselines, and the setting that says how sparse each is."""


class LinearWeights(NamedTuple):
    """x_hat = activation(x @ W_enc) @ W_dec + b_dec."""

    W_enc: Float[Tensor, "d_in d_sae"]
    W_dec: Float[Tensor, "d_sae d_out"]
    b_dec: Float[Tensor, " d_out"]


def paper_trainer(steps: int, seed: int = 0, device: str = "cpu") -> TrainerConfig:
    """The paper's optimiser, Adam(0.9, 0.999) at a constant 5e-4 on minibatches of 512 raw vectors, for so many steps."""
    return TrainerConfig(
        steps=steps,
        learning_rate=5e-4,
        learning_rate_schedule=Schedule(),
        center=False,
        rescale=False,
        seed=seed,
        device=device,
    )


def train_paper_baseline(
    name: str,
    setting: float,
    activations: Float[Tensor, "samples d_in"],
    d_sae: int,
    trainer: TrainerConfig,
    metadata: dict[str, Any] | None = None,
) -> SAE[Any]:
    """Trains one of the paper's baselines.

    Args:
        name: "relu_paper" and "gated_relu_paper", whose setting is alpha, or "topk_paper", whose setting is k. (As in SAELens,
            a ReLU follows the Top-k: it changes something only where fewer than k pre-activations are positive.)

    Raises:
        TypeError, ValueError: If there is no such baseline, its setting is out of range, or as `bae_lens.train`.
    """
    check_paper_baseline(name, setting, d_sae)
    check_plain(trainer)
    alpha = 0.0 if name == "topk_paper" else setting
    weights = fit_linear(activations, activations, d_sae, trainer, lambda pre: activate(name, setting, pre), alpha)
    return _as_sae(name, setting, weights, trainer.device, metadata)


def check_paper_baseline(name: str, setting: float, d_sae: int) -> None:
    """Raises ValueError unless the paper has such a baseline and its setting can be that of an SAE of so many features."""
    check_known("baseline of the paper", name, SETTINGS)
    if d_sae < 1:
        raise ValueError(f"an SAE needs at least one feature, got d_sae = {d_sae}")
    if name == "topk_paper" and not (1 <= setting <= d_sae and setting == int(setting)):
        raise ValueError(f"k of topk_paper must be a whole number from 1 to d_sae = {d_sae}, got {setting:g}")
    if not 0 <= setting < math.inf:
        raise ValueError(f"alpha of {name} must be at least 0, got {setting:g}")


def check_plain(trainer: TrainerConfig) -> None:
    """Raises ValueError if the configuration asks for what the paper does not do."""
    if trainer.center or trainer.rescale:
        raise ValueError("the paper trains on raw vectors: set center=False and rescale=False, as paper_trainer does")


def activate(name: str, setting: float, pre: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
    """ReLU, Top-k or Gated ReLU (x where x > 0.5, else 0; plain gradient) of pre-activations."""
    if name == "relu_paper":
        return pre.relu()
    if name == "gated_relu_paper":
        return gated_relu(pre)
    top = pre.topk(int(setting), dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())


def gated_relu(pre: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
    """Eq. 13: x where x > 0.5, else 0."""
    return pre * (pre > GATE)


def fit_linear(
    inputs: Float[Tensor, "samples d_in"],
    targets: Float[Tensor, "targets d_out"],
    d_sae: int,
    trainer: TrainerConfig,
    activation: Any,
    alpha: float,
    penalised: Any | None = None,
) -> LinearWeights:
    """Minimises mean (x_hat - target)^2 + alpha * sum |penalised(pre)|, the mean over minibatch and dimensions, by Adam.

    Weights start as `nn.Linear`'s do: uniform, up to one over the square root of what they sum over.

    Args:
        activation: Pre-activations ``(batch, d_sae)`` to what the decoder reads.
        penalised: Pre-activations to what the L1 norm is taken of; `activation` if not given.

    Raises:
        TypeError, ValueError: If the vectors cannot be trained on.
        FloatingPointError: If the loss is no longer finite.
    """
    source = as_source(inputs, "cpu")
    source.check(inputs.shape[1], trainer.batch_size)
    if len(targets) != len(inputs):
        raise ValueError(f"{len(inputs)} inputs and {len(targets)} targets are no pairs")
    generator = torch.Generator().manual_seed(trainer.seed)
    weights = _initial(inputs.shape[1], d_sae, targets.shape[1], generator, trainer.device)
    optimizer = torch.optim.Adam(weights, lr=trainer.learning_rate, betas=(trainer.beta1, trainer.beta2))
    steps = trainer.total_steps(len(inputs))
    bar = tqdm(total=steps, desc="train", leave=False)
    for step, rows in zip(range(steps), _row_batches(len(inputs), trainer.batch_size, generator), strict=False):
        optimizer.param_groups[0]["lr"] = trainer.learning_rate * trainer.learning_rate_schedule.factor(step, steps)
        pre = inputs[rows].to(trainer.device).float() @ weights.W_enc
        features = activation(pre)
        error = features @ weights.W_dec + weights.b_dec - targets[rows].to(trainer.device).float()
        loss = error.pow(2).mean()
        if alpha:
            loss = loss + alpha * (features if penalised is None else penalised(pre)).abs().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.update()
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}: begin again with a lower learning rate")
    bar.close()
    return LinearWeights(*(weight.detach() for weight in weights))


def _initial(d_in: int, d_sae: int, d_out: int, generator: torch.Generator, device: str) -> LinearWeights:
    def uniform(*shape: int, sums_over: int) -> Tensor:
        drawn = (torch.rand(*shape, generator=generator) * 2 - 1) / math.sqrt(sums_over)
        return nn.Parameter(drawn.to(device))

    return LinearWeights(
        uniform(d_in, d_sae, sums_over=d_in), uniform(d_sae, d_out, sums_over=d_sae), uniform(d_out, sums_over=d_sae)
    )


def _row_batches(samples: int, batch_size: int, generator: torch.Generator):
    while True:
        yield from torch.randperm(samples, generator=generator)[: samples - samples % batch_size].split(batch_size)


def _as_sae(name: str, setting: float, weights: LinearWeights, device: str, metadata: dict[str, Any] | None) -> SAE[Any]:
    d_in, d_sae = weights.W_enc.shape
    kinds = {
        "relu_paper": (StandardSAE, StandardSAEConfig, {}),
        "topk_paper": (TopKSAE, TopKSAEConfig, {"k": int(setting), "rescale_acts_by_decoder_norm": False}),
        "gated_relu_paper": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    }
    kind, config, fields = kinds[name]
    known = SAEMetadata(**{**(metadata or {}), "baseline": name, SETTINGS[name]: setting})
    sae = kind(config(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False, device=device, metadata=known, **fields))
    state = {**weights._asdict(), "b_enc": torch.zeros(d_sae, device=device)}
    if name == "gated_relu_paper":
        state["threshold"] = torch.full((d_sae,), GATE, device=device)
    sae.load_state_dict(state)
    return sae
