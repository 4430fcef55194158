"""Widths and layers of the Llamas whose activations are trained on, from their published configurations."""

from typing import NamedTuple

from bae_lens.checks import check_known


class ModelShape(NamedTuple):
    """What capacity depends on of a model."""

    title: str
    d_model: int
    layers: int


MODELS = {
    "llama-3.2-1b": ModelShape("Llama 3.2 1B", 2048, 16),
    "llama-3.2-3b": ModelShape("Llama 3.2 3B", 3072, 28),
    "llama-3.1-8b": ModelShape("Llama 3.1 8B", 4096, 32),
    "llama-3.1-70b": ModelShape("Llama 3.1 70B", 8192, 80),
}


def model_of(name: str) -> ModelShape:
    """A model's shape by name.

    Raises:
        ValueError: If it is unknown (near names are said).
    """
    check_known("model", name, MODELS)
    return MODELS[name]
