"""Hidden units beside a linear encoder: x W_enc + b_enc + relu(x W_hidden + b_hidden) W_out."""

from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor, nn
from typing_extensions import override

from bae_lens.model.config import encoder_width


class HiddenUnits(SAE[Any]):
    """An SAE whose encoder has `cfg.encoder_hidden` hidden units; where that is 0, none of these weights.

    Attributes:
        W_hidden: ``(d_in, encoder_hidden)``, b_hidden: ``(encoder_hidden,)``, W_out: ``(encoder_hidden, d_pre)``, 0 at first.
    """

    W_hidden: nn.Parameter
    b_hidden: nn.Parameter
    W_out: nn.Parameter

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        hidden = self.cfg.encoder_hidden
        if hidden:
            like = {"dtype": self.dtype, "device": self.device}
            self.W_hidden = nn.Parameter(torch.empty(self.cfg.d_in, hidden, **like))
            nn.init.kaiming_uniform_(self.W_hidden.T)
            self.b_hidden = nn.Parameter(torch.zeros(hidden, **like))
            self.W_out = nn.Parameter(torch.zeros(hidden, encoder_width(self.cfg), **like))

    def add_hidden_units(self, linear: Float[Tensor, "... d_pre"], x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_pre"]:
        """Pre-activations of processed vectors x, of their linear part."""
        if not self.cfg.encoder_hidden:
            return linear
        return linear + (x @ self.W_hidden + self.b_hidden).relu() @ self.W_out

    @override
    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """As SAELens' own, with the hidden units' weights."""
        super().fold_activation_norm_scaling_factor(scaling_factor)
        if self.cfg.encoder_hidden:
            self.W_hidden.data.mul_(scaling_factor)

    @override
    @torch.no_grad()
    def fold_activation_whitening(self, mean: Tensor, whitening_matrix: Tensor, unwhitening_matrix: Tensor) -> None:
        """As SAELens' own, with the hidden units' weights."""
        super().fold_activation_whitening(mean, whitening_matrix, unwhitening_matrix)
        if self.cfg.encoder_hidden:
            W_hidden = whitening_matrix.to(self.device).double() @ self.W_hidden.double()
            if not self.cfg.apply_b_dec_to_input:  # a subtracted b_dec brings the mean along
                self.b_hidden.data.sub_(mean.to(self.device).double() @ W_hidden)
            self.W_hidden.data.copy_(W_hidden)
