"""Encoder and decoder of a minibatch by the entries that matter in it: the numbers of the dense products, for less work.

A feature that is off adds nothing to the reconstruction and nothing to its decoder row's gradient; one that is on at one level
in the whole minibatch adds its row once. A surrogate that is local around the threshold (`clip`) leaves a gradient only at
pre-activations near it. On CUDA, where choosing entries would wait for the device, the dense products are taken.
"""

import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

SPARSE = 0.15
"""Up to this share of entries, adding up rows is faster than the dense product (they meet at about a third)."""

VERY_SPARSE = 0.1
"""The same for the entries of a product."""


def encode_linear(
    x: Float[Tensor, "... d_in"], W_enc: Float[Tensor, "d_in d_bits"], b_enc: Float[Tensor, " d_bits"]
) -> Float[Tensor, "... d_bits"]:
    """x W_enc + b_enc; the weight's gradient is taken from the entries that any gradient reaches."""
    if not _worthwhile(x):
        return x @ W_enc + b_enc
    pre = _Encode.apply(x, W_enc, b_enc)
    assert isinstance(pre, Tensor)
    return pre


def decode_linear(
    features: Float[Tensor, "... d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    wanted: Bool[Tensor, "... d_sae"] | None = None,
) -> Float[Tensor, "... d_in"]:
    """features W_dec + b_dec, and the weight's gradient, from the features that are on.

    Args:
        wanted: Where anything reads the features' gradient; elsewhere it may come back as 0.
    """
    if not _worthwhile(features):
        return features @ W_dec + b_dec
    x_hat = _Decode.apply(features, W_dec, b_dec, wanted)
    assert isinstance(x_hat, Tensor)
    return x_hat


def _worthwhile(x: Tensor) -> bool:
    return (
        x.dim() == 2
        and len(x) > 0
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


class Entries(NamedTuple):
    """The chosen entries of a matrix, row by row, as `embedding_bag` takes them."""

    columns: Tensor
    """The column of each entry ``(entries,)``."""
    starts: Tensor
    """Where each row's entries begin ``(rows,)``."""
    values: Tensor
    """``(entries,)``"""

    def __matmul__(self, rows: Float[Tensor, "columns width"]) -> Float[Tensor, "rows width"]:
        return F.embedding_bag(self.columns, rows, self.starts, mode="sum", per_sample_weights=self.values)


def entries(matrix: Float[Tensor, "rows columns"], chosen: Bool[Tensor, "rows columns"]) -> Entries | None:
    """The chosen entries of a matrix; None where they are too many to be worth it."""
    counts = chosen.sum(1)
    ends = counts.cumsum(0)
    if len(ends) and ends[-1] > SPARSE * chosen.numel():
        return None
    flat = chosen.reshape(-1).nonzero().squeeze(1)
    return Entries(flat % matrix.shape[1], ends - counts, matrix.reshape(-1)[flat])


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, W_enc: Tensor, b_enc: Tensor) -> Tensor:
        return torch.addmm(b_enc, x, W_enc)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, W_enc = ctx.saved_tensors
        for_x, for_W, for_b = ctx.needs_input_grad
        grad = grads[0]
        grad_W = _transposed_product(grad, grad.bool(), x).T.contiguous() if for_W else None
        return grad @ W_enc.T if for_x else None, grad_W, grad.sum(0) if for_b else None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(features: Tensor, W_dec: Tensor, b_dec: Tensor, wanted: Tensor | None) -> Tensor:  # noqa: ARG004
        on, constant = _changing(features)
        changing = entries(features, on)
        if changing is None:
            return torch.addmm(b_dec, features, W_dec)
        return (changing @ W_dec).add_(b_dec + features[0, constant] @ W_dec[constant])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[0], inputs[1], inputs[3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        features, W_dec, wanted = ctx.saved_tensors
        grad, total = grads[0], grads[0].sum(0)
        grad_W = None
        if ctx.needs_input_grad[1]:
            on, constant = _changing(features)
            grad_W = _transposed_product(features, on, grad)
            grad_W[constant] = torch.outer(features[0, constant], total)
        return _product_at(grad, W_dec, wanted) if ctx.needs_input_grad[0] else None, grad_W, total, None


def _product_at(
    grad: Float[Tensor, "batch d_in"], W_dec: Float[Tensor, "d_sae d_in"], wanted: Bool[Tensor, "batch d_sae"] | None
) -> Float[Tensor, "batch d_sae"]:
    """grad @ W_dec.T, at the wanted entries at least."""
    counts = None if wanted is None else wanted.sum(1)
    if wanted is None or counts is None or counts.sum() > VERY_SPARSE * wanted.numel() or not torch.backends.mkl.is_available():
        return grad @ W_dec.T
    places = wanted.reshape(-1).nonzero().squeeze(1)
    starts = F.pad(counts.cumsum(0), (1, 0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        pattern = torch.sparse_csr_tensor(
            starts, places % wanted.shape[1], grad.new_zeros(len(places)), size=wanted.shape, check_invariants=False
        )
        found = torch.sparse.sampled_addmm(pattern, grad, W_dec.T, beta=0.0).values()
    return grad.new_zeros(wanted.numel()).index_copy_(0, places, found).view(wanted.shape)


def _changing(features: Float[Tensor, "batch d_sae"]) -> tuple[Tensor, Tensor]:
    """Which entries are on in columns that change, and the columns that have one value other than 0 in all rows."""
    candidates = features[0].nonzero().squeeze(1)
    constant = candidates[(features.index_select(1, candidates) == features[0, candidates]).all(0)]
    on = features.bool()
    on[:, constant] = False
    return on, constant


def _transposed_product(
    matrix: Float[Tensor, "batch columns"], chosen: Bool[Tensor, "batch columns"], rows: Float[Tensor, "batch width"]
) -> Float[Tensor, "columns width"]:
    """matrix.T @ rows, where only the chosen entries of the matrix differ from 0."""
    sparse = entries(matrix.T.contiguous(), chosen.T.contiguous())
    return matrix.T @ rows if sparse is None else sparse @ rows.contiguous()
