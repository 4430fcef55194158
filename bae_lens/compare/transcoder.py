"""The paper's Transcoder (A.4, Eqs. 15 and 16): from the input of MLP l - 1 towards hidden state l, over paired activations.

h_2 = ReLU(h_0 W_in) W_out + b is trained towards the hidden state itself, not the MLP's output. As printed, the L1 norm is of
the *gated* activation (over 0.5) while the decoder reads the plain ReLU. It is given back as SAELens' own Transcoder.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import Transcoder, TranscoderConfig
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.models import find_hook_point, load_model
from bae_lens.analyze.fidelity import ablation_baseline, fidelity_of
from bae_lens.compare.data import CompareData, check_belongs, open_data
from bae_lens.compare.paper_baselines import ALPHA, check_paper_baseline, check_plain, fit_linear, gated_relu
from bae_lens.training.config import TrainerConfig


class PairedData(NamedTuple):
    """Vectors of two hook points, a pair a token."""

    inputs: CompareData
    target_hook: str
    train_target: Float[Tensor, "token d_out"]
    held_out_target: Float[Tensor, "held_out_token d_out"]


class CrossSplice(NamedTuple):
    """A model in which a transcoder reads at one hook point and writes at another."""

    model: Any
    input_hook: str
    target_hook: str
    windows: Any
    losses: Any
    """CE losses of the model as it is, and ablated where the transcoder writes."""


def train_transcoder(
    inputs: Float[Tensor, "samples d_in"],
    targets: Float[Tensor, "targets d_out"],
    d_sae: int,
    trainer: TrainerConfig,
    alpha: float = ALPHA,
    metadata: dict[str, Any] | None = None,
) -> Transcoder:
    """Trains a transcoder on raw vectors, by Adam as `paper_trainer` has it.

    Args:
        inputs: Of the input of an MLP.
        targets: The hidden state after that MLP, of the same tokens.
        alpha: Weight of the L1 norm of the gated activation, summed over minibatch and channels; L_r is averaged over the
            minibatch and the dimensions.

    Raises:
        TypeError, ValueError: If the vectors cannot be trained on or are no pairs, or alpha is negative.
        FloatingPointError: If the loss is no longer finite.
    """
    check_paper_baseline("relu_paper", alpha, d_sae)
    check_plain(trainer)
    weights = fit_linear(inputs, targets, d_sae, trainer, torch.relu, alpha, penalised=gated_relu)
    known = SAEMetadata(**{**(metadata or {}), "baseline": "transcoder_paper", "alpha": alpha})
    cfg = TranscoderConfig(
        d_in=inputs.shape[1],
        d_out=targets.shape[1],
        d_sae=d_sae,
        apply_b_dec_to_input=False,
        device=trainer.device,
        metadata=known,
    )
    transcoder = Transcoder(cfg)
    transcoder.load_state_dict({**weights._asdict(), "b_enc": torch.zeros(d_sae, device=trainer.device)})
    return transcoder


def open_pairs(path: str | Path, input_hook: str, target_hook: str, **options: Any) -> PairedData:
    """Activations of two hook points of one directory; options as of `open_data`.

    Raises:
        ValueError: If both are the same, one of them is not there, or as `open_data`.
    """
    if input_hook == target_hook:
        raise ValueError(f"a transcoder goes from one hook point to another, both given are {input_hook}")
    inputs = open_data(path, input_hook, **options)
    train, held_out = ActivationDataset(path, target_hook).split()
    return PairedData(inputs, target_hook, train.tensor(len(inputs.train)), held_out.tensor(len(inputs.held_out)))


def cross_splice(data: PairedData, device: str = "cpu") -> CrossSplice | None:
    """The model of the activations; None where there is none.

    Raises:
        ValueError: If the target is not after the input, or cannot be written to.
    """
    source = data.inputs
    if source.model is None or source.windows is None:
        return None
    model = load_model(source.model, device=device)
    check_belongs(model, data.target_hook, data.train_target.shape[1])
    losses = ablation_baseline(model, source.windows, data.target_hook, data.train_target.mean(0))
    return CrossSplice(model, source.hook_name, data.target_hook, source.windows, losses)


def cross_ce_recovered(transcoder: Transcoder, splice: CrossSplice) -> tuple[float, float]:
    """CE recovered against zero- and mean-ablation of the hidden state, where the transcoder's takes its place.

    Raises:
        ValueError: If the hook point that it writes to comes before the one that it reads.
    """
    read: list[Tensor] = []

    def keep(activation: Tensor, hook: HookPoint) -> None:
        read[:] = [activation.flatten(2)]

    def replace(x: Tensor) -> Tensor:
        if not read:
            raise ValueError(f"{splice.target_hook} comes before {splice.input_hook}: nothing was read yet")
        flat = read.pop()[:, 1:].flatten(0, 1).float()
        with torch.no_grad():
            return transcoder.decode(transcoder.encode(flat)).to(x).reshape(x.shape)

    name = find_hook_point(splice.model, splice.input_hook).name
    with splice.model.hooks(fwd_hooks=[(name, keep)]):
        ce = fidelity_of(splice.model, replace, splice.windows, splice.target_hook, splice.losses)
    return ce.recovered_from_zero, ce.recovered_from_mean
