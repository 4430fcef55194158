"""A BAE as other tools want to see it: graded activations, a "standard" architecture name, a JumpReLU that needs no plugin."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor
from typing_extensions import override

from bae_lens.checks import check_activations, check_known
from bae_lens.model.bae import BAE
from bae_lens.model.config import BAEConfig

ARCHITECTURES = ("bae", "standard")


@dataclass
class _StandardNamedConfig(BAEConfig):
    """A BAE's configuration under the name that dashboard tools have on their lists."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return "standard"


class GradedBAE(BAE):
    """A BAE whose activations rank tokens within a feature, and which reconstructs what the BAE reconstructs.

    A feature's activation is its level, less up to half the distance to the level below: the less so, the further its nearest
    bit is from the threshold. With C = 1 an activation is 0, or in [0.5, 1], growing with the pre-activation. `decode` puts
    such values back on their level and takes all others as they are, so that steering and patching stay linear.
    """

    @override
    def encode(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... d_sae"]:
        """Graded activations of vectors ``(..., d_in)``, times `act_scale`."""
        bits, pre = self.encode_bits(x)
        levels = self.bits_to_features(bits)
        margin = pre.abs().unflatten(-1, (-1, self.cfg.bits_per_feature)).amin(-1)
        below = 0.5 * self._step() / (1 + margin)  # a ratio, since a sigmoid would tie far from the threshold
        return self.hook_sae_acts_post(torch.where(levels > 0, levels - below, levels))

    @override
    def decode(self, feature_acts: Float[Tensor, "... d_sae"]) -> Float[Tensor, "..."]:
        """Reconstructions ``(..., d_in)``, of graded activations the BAE's own."""
        step = self._step()
        level = (feature_acts / step).ceil().clamp(0, 2**self.cfg.bits_per_feature - 1) * step
        short = level - feature_acts
        graded = (short >= 0) & (short <= 0.5 * step * (1 + 1e-6)) & (feature_acts > 0)
        return super().decode(torch.where(graded, level, feature_acts))

    def _step(self) -> Float[Tensor, " d_sae"]:
        return self.act_scale / (2**self.cfg.bits_per_feature - 1)


class StandardGradedBAE(GradedBAE):
    """A graded view with all that is per feature in W_enc, b_enc and W_dec: dashboard tools cut these three, and only these,
    to a few features at a time. Its weights are its own, since such tools also fold in place."""

    @override
    def fold_and_get_W_dec_norm(self) -> Tensor:
        """Changes nothing: activations lie in [0.5, 1] whatever the decoder's norms."""
        return self.get_W_dec_norm()


def _standard_state(bae: BAE) -> dict[str, Tensor]:
    """A copy of a BAE's weights with its scales in the decoder and the side of 0 in the encoder's bias."""
    if bae.cfg.bits_per_feature != 1:
        raise ValueError(
            'only a BAE of one bit a feature has a view named "standard": tools cut its encoder feature by feature'
        )
    if bae.cfg.encoder_hidden:
        raise ValueError(
            'only a linear encoder has a view named "standard": tools cut W_enc and b_enc, and would leave the hidden units out'
        )
    state = {name: tensor.detach().clone() for name, tensor in bae.state_dict().items()}
    state["W_dec"] *= state["act_scale"].unsqueeze(1)
    above = torch.nextafter(state["b_enc"], torch.full_like(state["b_enc"], torch.inf))
    state["b_enc"] = torch.where(state["at_zero"] > 0.5, above, state["b_enc"])
    state["act_scale"].fill_(1)
    state["at_zero"].fill_(0)
    return state


def graded_view(bae: BAE, architecture: str = "bae") -> GradedBAE:
    """A view of a BAE with graded activations, for tools that rank or threshold them.

    Under the name "bae" it shares the BAE's weights; under "standard" it has its own (see `StandardGradedBAE`).

    Args:
        architecture: The name that `cfg.architecture()` gives: "bae", or "standard" for tools with a list of their own.

    Raises:
        ValueError: If the architecture name is neither, the BAE has no prior yet (tools would rank untrained features), or
            C > 1 or an encoder with hidden units under the name "standard".
    """
    check_known("architecture", architecture, ARCHITECTURES)
    bae.check_prior()
    if bae.is_nested or bae.cfg.refine_weight:
        raise ValueError(
            "a graded view shows how far bits are from their thresholds; nested or refined codes do not keep to them"
        )
    standard = architecture == "standard"
    kind = _StandardNamedConfig if standard else BAEConfig
    values = {field.name: getattr(bae.cfg, field.name) for field in fields(BAEConfig)}
    cfg = kind(**{**values, "device": "meta", "metadata": SAEMetadata(**bae.cfg.metadata.to_dict())})
    view = (StandardGradedBAE if standard else GradedBAE)(cfg)
    view.load_state_dict(_standard_state(bae) if standard else bae.state_dict(), assign=True)
    if standard:  # of one size for any number of features
        view.act_scale, view.at_zero = view.act_scale[:1], view.at_zero[:1]
    view.cfg.device, view.device = bae.cfg.device, bae.device
    return view


class ExportReport(NamedTuple):
    """How far an exported JumpReLU SAE is from its BAE, measured on the vectors that were given."""

    tolerance: float
    """Activations of bits that are on lie within 1 and 1 + tolerance there."""
    largest_activation: float
    bits_changed: float
    """Share of the bits that differ (pre-activations that rounding puts on the other side)."""
    reconstruction_error: float
    """Relative: |x_hat' - x_hat|^2 over |x_hat|^2, its root, over all vectors."""


class Export(NamedTuple):
    """A JumpReLU SAE that plain SAELens loads, and what it costs."""

    sae: JumpReLUSAE
    report: ExportReport


@torch.no_grad()
def export_jumprelu(bae: BAE, vectors: Float[Tensor, "token d_in"], tolerance: float = 1e-2) -> Export:
    """A JumpReLU SAE whose activations are 1 within a tolerance where the BAE's bits are 1: it needs no `bae_lens` to load.

    Its pre-activation is 1 + epsilon times the BAE's and its threshold 1, with epsilon, feature by feature, as large as the
    tolerance allows on these vectors: the smaller it is, the more pre-activations near 0 fall on the other side by rounding.

    Raises:
        ValueError: If C > 1 (a JumpReLU has one threshold a feature), the encoder has hidden units (a JumpReLU's is linear),
            the tolerance is not between 0 and 1, or the vectors do not fit.
    """
    if bae.cfg.bits_per_feature != 1 or bae.cfg.refine_weight:
        refined = ", refined" if bae.cfg.refine_weight else ""
        raise ValueError(
            f"only an unrefined BAE of one bit a feature is a JumpReLU SAE; this one has {bae.cfg.bits_per_feature}{refined}"
        )
    if bae.cfg.encoder_hidden:
        raise ValueError(f"a JumpReLU SAE's encoder is linear; this BAE's has {bae.cfg.encoder_hidden} hidden units")
    if not 0 < tolerance < 1:
        raise ValueError(f"the tolerance must be between 0 and 1, got {tolerance}")
    check_activations(vectors, bae.cfg.d_in)
    largest = torch.stack([bae.encode_bits(x.to(bae.device))[1].amax(0) for x in vectors.split(4096)]).amax(0)
    epsilon = tolerance / torch.where(largest > 0, largest, largest.amax().clamp_min(1e-6))
    sae = JumpReLUSAE(
        JumpReLUSAEConfig(
            d_in=bae.cfg.d_in,
            d_sae=bae.cfg.d_sae,
            dtype=bae.cfg.dtype,
            device=bae.cfg.device,
            apply_b_dec_to_input=bae.cfg.apply_b_dec_to_input,
            normalize_activations=bae.cfg.normalize_activations,
            reshape_activations=bae.cfg.reshape_activations,
            metadata=SAEMetadata(**bae.cfg.metadata.to_dict(), exported_from="bae", export_tolerance=tolerance),
        )
    )
    sae.W_enc.copy_(epsilon * bae.W_enc)
    sae.b_enc.copy_(1 + epsilon * bae.b_enc)
    sae.W_dec.copy_(bae.act_scale.unsqueeze(1) * bae.W_dec)
    sae.b_dec.copy_(bae.b_dec)
    one = torch.ones_like(sae.threshold)
    # JumpReLU fires strictly above its threshold, a BAE's bit at 0 may be 1
    sae.threshold.copy_(torch.where(bae.at_zero > 0.5, torch.nextafter(one, torch.zeros_like(one)), one))
    return Export(sae, _compare(bae, sae, vectors, tolerance))


def _compare(bae: BAE, sae: JumpReLUSAE, vectors: Tensor, tolerance: float) -> ExportReport:
    largest, changed, error, energy = 0.0, 0, 0.0, 0.0
    for x in vectors.split(4096):
        x = x.to(bae.device)
        acts, bits = sae.encode(x), bae.bits(x)
        exact = bae(x)
        largest = max(largest, acts.max().item())
        changed += int(((acts > 0) != (bits > 0.5)).sum())
        error += (sae.decode(acts) - exact).double().pow(2).sum().item()
        energy += exact.double().pow(2).sum().item()
    share = changed / (len(vectors) * bae.cfg.d_sae)
    return ExportReport(tolerance, largest, share, (error / max(energy, 1e-300)) ** 0.5)


def describe_export(report: ExportReport) -> str:
    """The report in one sentence, as it is printed at export."""
    values: dict[str, Any] = report._asdict()
    return (
        "activations of bits that are on lie within 1 and {largest_activation:.6g} (asked: 1 + {tolerance:g}); "
        "{bits_changed:.2e} of the bits differ; reconstructions differ by {reconstruction_error:.2e} of their norm"
    ).format(**values)
