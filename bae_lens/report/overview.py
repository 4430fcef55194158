"""The numbers on a report's first page: FVU with entropy, bits a token, CE recovered, live, dead and dense features."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from sae_lens import SAE

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.fidelity import Fidelity, ablation_baseline, fidelity
from bae_lens.analyze.statistics import Vectors, mean_vector
from bae_lens.model.bae import BinaryCode
from bae_lens.model.more_bit import bits_of_levels
from bae_lens.objective.entropy import marginal_entropy
from bae_lens.objective.metrics import DENSE
from bae_lens.report.codes import Codes
from bae_lens.report.features import Columns
from bae_lens.report.source import Source

COUNTED = 32_768
"""Vectors that the magnitudes of another SAE are priced on, and as many that their frequencies are counted on."""


class Overview(NamedTuple):
    """Of a code over the tokens of a report. An entropy, as bits, means nothing without the FVU beside it."""

    tokens: int
    fvu: float
    entropy: float
    """Marginal, bits a token, of which features are on (of a BAE with bits that are not nested: of its bits)."""
    bits: float
    """Bits a token that the codes cost: a BAE's under its own prior, another SAE's with its magnitudes (`code_length`)."""
    bits_fvu: float
    """FVU of the code that costs so many bits."""
    magnitudes: float
    """Of `bits`: how strongly; 0 for a BAE."""
    l0: float
    live: int
    dead: int
    """Features that are always off or always on."""
    stuck_at_one: int
    dense: int
    """On for more than a tenth of the tokens."""
    ce: Fidelity | None
    """None: see `Source.without`."""


def overview(sae: SAE[Any], codes: Codes, columns: Columns, source: Source, ce: Fidelity | None = None) -> Overview:
    """Measures what is not in the codes already: CE losses, and the bits of magnitudes."""
    frequency = codes.on / codes.tokens
    bits, bits_fvu, magnitudes = float(columns.bits.sum()), codes.fvu, 0.0
    if not isinstance(sae, BinaryCode):
        bits, bits_fvu, magnitudes = _other_bits(sae, source, codes)
    return Overview(
        tokens=codes.tokens,
        fvu=codes.fvu,
        entropy=_entropy(sae, codes),
        bits=bits,
        bits_fvu=bits_fvu,
        magnitudes=magnitudes,
        l0=float(frequency.sum()),
        live=int(((frequency > 0) & (frequency < 1)).sum()),
        dead=int(((frequency == 0) | (frequency == 1)).sum()),
        stuck_at_one=int((frequency == 1).sum()),
        dense=int((frequency > DENSE).sum()),
        ce=ce or ce_losses(sae, source),
    )


def ce_losses(sae: SAE[Any], source: Source) -> Fidelity | None:
    """CE losses of the model as it is, with the SAE spliced in, and ablated; None where there is no model or no window."""
    if source.model is None or source.windows is None:
        return None
    hook = str(sae.cfg.metadata.hook_name)
    mean = mean_vector(_first(source.vectors, COUNTED)).float()
    return fidelity(source.model, sae, source.windows, ablation_baseline(source.model, source.windows, hook, mean))


def _entropy(sae: SAE[Any], codes: Codes) -> float:
    """Marginal entropy as `code_statistics` has it: of the bits, or of which features are on where these are nested."""
    if codes.levels is None or not isinstance(sae, BinaryCode) or sae.is_nested or sae.cfg.bits_per_feature == 1:
        return marginal_entropy(torch.from_numpy(codes.on / codes.tokens)).item()
    bits = bits_of_levels(torch.arange(sae.top_level + 1).unsqueeze(1), sae.cfg.bits_per_feature, sae.cfg.code).double()
    ones = torch.from_numpy(codes.levels).double() @ bits
    return marginal_entropy((ones / codes.tokens).flatten()).item()


def _other_bits(sae: SAE[Any], source: Source, codes: Codes) -> tuple[float, float, float]:
    """Bits a token of an SAE with magnitudes, counted on one half of the documents and measured on the other."""
    documents = source.places.documents[: codes.tokens]
    known, of = documents.unique(return_inverse=True)
    second = (of >= len(known) // 2) if len(known) > 1 else torch.arange(len(of)) >= len(of) // 2
    halves = [side.nonzero().squeeze(1)[:COUNTED] for side in (~second, second)]
    if min(map(len, halves)) < 2:
        return math.nan, math.nan, math.nan
    train, held_out = (
        source.vectors.rows(index).float() if isinstance(source.vectors, ActivationDataset) else source.vectors[index]
        for index in halves
    )
    length = code_length(sae, train, held_out)
    return length.bits, length.fvu, length.magnitudes


def _first(vectors: Vectors, count: int) -> torch.Tensor:
    return vectors.tensor(count) if isinstance(vectors, ActivationDataset) else vectors[:count]


def as_json(found: Overview) -> dict[str, Any]:
    """As JSON values, what is not a number as None."""
    values = {name: value for name, value in found._asdict().items() if name != "ce"}
    plain = {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in values.items()}
    return {**plain, "ce": None if found.ce is None else found.ce._asdict()}
