"""Direct logit attribution: what a feature writes into the logits by itself, past every later block.

A decoder row goes through the final norm and the unembedding. The norm divides by the size of the whole residual stream, which
one row does not change much: the denominator is held fixed. Where prompts are given it is the one of their run, the mean of
1/denominator over their tokens; without prompts it is 1, and only the direction counts.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from bae_lens.activations.text import Windows
from bae_lens.intervene.suffix import Prompts, after_bos, check_linear_decoder, rows_a_pass, rows_of, token_windows
from bae_lens.model.bae import BinaryCode

NORM_SCALE = "ln_final.hook_scale"
WRITES_TO_STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "hook_embed")


def feature_units(sae: SAE[Any]) -> Float[Tensor, " d_sae"]:
    """The activation that counts as one unit of each feature.

    Of a BAE what one level adds: `act_scale` where a feature is one bit, `act_scale` / top level where it is several. Of
    another SAE an activation of 1.
    """
    if isinstance(sae, BinaryCode):
        return sae.act_scale.detach().float() / sae.top_level
    return torch.ones(sae.cfg.d_sae, device=sae.device)


@torch.no_grad()
def direct_logits(
    model: Any,
    sae: SAE[Any],
    features: Sequence[int] | None = None,
    *,
    prompts: Prompts | None = None,
    hook_name: str | None = None,
) -> Float[Tensor, "feature vocab"]:
    """What one unit of each feature adds to the logits directly, centred over the vocabulary.

    Args:
        features: Which features; all if not given.
        prompts: Texts whose run gives the final norm's denominator; without them it is 1.
        hook_name: Another hook point than the metadata's.

    Raises:
        ValueError: If what passes the SAE's hook point is not added to the residual stream, or its width is another.
    """
    name = str(hook_name or sae.cfg.metadata.hook_name)
    if not name.endswith(WRITES_TO_STREAM) or sae.cfg.d_in != model.cfg.d_model:
        raise ValueError(
            f"direct logits are of SAEs in the residual stream: this one is at {name!r} and of width {sae.cfg.d_in}, "
            f"the model's stream of width {model.cfg.d_model}"
        )
    check_linear_decoder(sae)
    chosen = torch.arange(sae.cfg.d_sae) if features is None else torch.as_tensor(list(features), dtype=torch.long)
    chosen = chosen.to(sae.W_dec.device)
    rows = sae.W_dec[chosen].float() * feature_units(sae)[chosen].unsqueeze(1)
    scale = 1.0 if prompts is None else final_norm_scale(model, token_windows(model, prompts))
    return logits_of_directions(model, rows) * scale


@torch.no_grad()
def logits_of_directions(model: Any, directions: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """Directions of the residual stream through the final norm's weights and the unembedding, centred over the vocabulary."""
    if str(model.cfg.normalization_type).startswith("LN"):
        directions = directions - directions.mean(1, keepdim=True)
    weight = getattr(model.ln_final, "w", None)
    weight = getattr(model.ln_final, "weight", None) if weight is None else weight
    unembed = model.W_U.float()
    directions = directions.to(unembed.device)
    if weight is not None:
        directions = directions * (weight.float() + float(getattr(model.cfg, "rmsnorm_uses_offset", False)))
    logits = directions @ unembed
    return logits - logits.mean(1, keepdim=True)


@torch.no_grad()
def final_norm_scale(model: Any, windows: Windows) -> float:
    """The mean of 1 / the final norm's denominator over the tokens of windows, BOS left out."""
    total, count = 0.0, 0
    for index in torch.arange(len(windows.tokens)).split(rows_a_pass(model, windows.tokens.shape[1])):
        part = rows_of(windows, index)
        found: list[Tensor] = []

        def look(scale: Tensor, *, hook: HookPoint, found: list[Tensor] = found) -> None:
            found.append(scale.detach())

        tokens = part.tokens.to(next(model.parameters()).device)
        model.run_with_hooks(tokens, fwd_hooks=[(NORM_SCALE, look)], attention_mask=torch.ones_like(tokens))
        keep = after_bos(part)
        total += (1 / found[0].float().cpu().squeeze(-1)[keep]).double().sum().item()
        count += int(keep.sum())
    return total / count
