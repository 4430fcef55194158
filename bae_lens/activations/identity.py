"""What tells a model from others, so that a job that is taken up again is known to be about the same."""

import hashlib
from typing import Any

import torch


def weights_hash(model: Any) -> str:
    """A hash of some values of every parameter, in hexadecimal digits."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().flatten()
        chosen = values[torch.linspace(0, len(values) - 1, min(256, len(values))).long()]
        found.update(name.encode() + chosen.double().cpu().numpy().tobytes())
    return found.hexdigest()[:16]
