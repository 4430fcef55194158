"""The kinds of code that the codec is tested with."""

import torch

KINDS = {
    "plain": {},
    "powers": {"bits_per_feature": 3},
    "nested": {"bits_per_feature": 4, "code": "nested"},
    "refined": {"bits_per_feature": 4, "code": "nested", "refine_weight": 0.05, "refine_from": 6},
}


def levels_of(bae, x):
    """Levels of the code of each feature, by the BAE's own functions."""
    features = bae.encode(x) / bae.act_scale
    return (features * bae.top_level).round().to(torch.int16)
