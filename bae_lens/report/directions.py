"""What the decoder rows say of features: the tokens that each promotes, the rows nearest to each, and a map of them all."""

import importlib
import importlib.util
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from tqdm.auto import tqdm

from bae_lens.activations.text import Windows
from bae_lens.checks import check_known
from bae_lens.chunks import rows_at_once
from bae_lens.compare.data import first_windows
from bae_lens.intervene.direct import direct_logits, final_norm_scale

TOKENS = 10
"""Tokens that are promoted most, and suppressed most."""
NEAREST = 6
NORM_TOKENS = 2048
"""Tokens whose run gives the final norm's denominator."""
MAPS = ("pca", "umap", "none")
UMAP_NEIGHBOURS = 15


class Promoted(NamedTuple):
    """Direct logit attribution of one unit of each feature: the highest and the lowest, strongest first."""

    up: Int[np.ndarray, "feature tokens"]
    up_by: Float[np.ndarray, "feature tokens"]
    down: Int[np.ndarray, "feature tokens"]
    down_by: Float[np.ndarray, "feature tokens"]


class Nearest(NamedTuple):
    """The features of the nearest decoder rows; -1 where there are fewer."""

    feature: Int[np.ndarray, "feature top"]
    cosine: Float[np.ndarray, "feature top"]


@torch.no_grad()
def promoted(
    model: Any, sae: SAE[Any], windows: Windows | None, count: int = TOKENS, *, progress: bool = True
) -> Promoted | str:
    """Tokens that features promote and suppress by themselves; or why that cannot be known (`direct_logits`)."""
    try:
        direct_logits(model, sae, [0])
    except ValueError as error:
        return str(error)
    scale = final_norm_scale(model, first_windows(windows, NORM_TOKENS)) if windows is not None else 1.0
    count = min(count, model.cfg.d_vocab)
    parts: list[tuple[torch.Tensor, ...]] = []
    with tqdm(total=sae.cfg.d_sae, desc="promoted tokens", unit="feature", disable=not progress) as bar:
        for chosen in torch.arange(sae.cfg.d_sae).split(rows_at_once(model.cfg.d_vocab)):
            logits = direct_logits(model, sae, chosen.tolist()) * scale
            up, down = logits.topk(count), logits.topk(count, largest=False)
            parts.append((up.indices, up.values, down.indices, down.values))
            bar.update(len(chosen))
    return Promoted(*(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)))


@torch.no_grad()
def nearest_rows(
    rows: Float[torch.Tensor, "feature d_in"], live: Bool[np.ndarray, " feature"], count: int = NEAREST
) -> Nearest:
    """The live features whose decoder rows have the largest cosine with each one's."""
    count = min(count, int(live.sum()))
    unit = torch.nn.functional.normalize(rows.detach().float().cpu(), dim=1)
    others = torch.from_numpy(live.copy())
    cosines, features = [], []
    for index in torch.arange(len(unit)).split(rows_at_once(len(unit))):
        similar = unit[index] @ unit.T
        similar[:, ~others] = -np.inf
        similar[torch.arange(len(index)), index] = -np.inf
        top = similar.topk(count, dim=1)
        cosines.append(top.values)
        features.append(torch.where(top.values.isfinite(), top.indices, -1))
    cosine = torch.cat(cosines).nan_to_num(neginf=0.0)
    return Nearest(torch.cat(features).numpy(), cosine.numpy())


def check_map(kind: str) -> None:
    """Raises ValueError unless there is such a map, ImportError where umap-learn is asked for and is not installed."""
    check_known("map", kind, MAPS)
    if kind == "umap" and importlib.util.find_spec("umap") is None:
        raise ImportError("umap-learn is not installed: pip install 'bae-lens[umap]', or take --map pca")


@torch.no_grad()
def map_rows(
    rows: Float[torch.Tensor, "feature d_in"], live: Bool[np.ndarray, " feature"], kind: str = "pca", seed: int = 0
) -> Float[np.ndarray, "feature xy"] | None:
    """Places of the live features' decoder rows, of norm 1, in the plane, each within 0 to 1; NaN for the others.

    Args:
        kind: "pca": the two directions of most variance; "umap": neighbours near each other (an extra); "none".

    Returns:
        None where no map is asked for, or fewer than three features are live.
    """
    if kind == "none" or live.sum() < 3:
        return None
    unit = torch.nn.functional.normalize(rows.detach().float().cpu()[torch.from_numpy(live.copy())], dim=1)
    if kind == "umap" and len(unit) > UMAP_NEIGHBOURS:
        umap = importlib.import_module("umap")
        reducer = umap.UMAP(n_neighbors=UMAP_NEIGHBOURS, metric="cosine", random_state=seed, n_jobs=1)
        places = np.asarray(reducer.fit_transform(unit.numpy()))
    else:
        centred = unit - unit.mean(0)
        _, vectors = torch.linalg.eigh(centred.T.double() @ centred.double())
        places = (centred.double() @ vectors[:, -2:].flip(1)).numpy()
    low, high = places.min(0), places.max(0)
    out = np.full((len(live), 2), np.nan)
    out[live] = (places - low) / np.maximum(high - low, 1e-12)
    return out
