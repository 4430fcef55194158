"""Binary Autoencoders (arXiv 2509.20997) for TransformerLens and SAELens. Importing this registers "bae" with SAELens."""

import importlib
import sys
from pathlib import Path
from typing import Any

try:
    from sae_lens import register_sae_class, register_sae_training_class
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
except ImportError as error:  # a package that is missing or does not fit: the doctor needs none of them
    error.add_note(f"What does not fit, and what to do: {sys.executable} -P {Path(__file__).with_name('doctor.py')}")
    raise

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest import Activations, harvest
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.hugging_face import load_for_harvest
from bae_lens.activations.models import load_model
from bae_lens.activations.saving import save_activations
from bae_lens.activations.stream import ModelActivations
from bae_lens.activations.text import read_documents, split_documents, tokenize
from bae_lens.analyze.entropy import entropy_estimates
from bae_lens.grid.job import train_grid
from bae_lens.grid.options import GridOptions
from bae_lens.intervene.attach import attach
from bae_lens.intervene.effects import feature_effect
from bae_lens.intervene.inspect import inspect
from bae_lens.intervene.steer import steer
from bae_lens.intervene.task_vector import task_vector
from bae_lens.model.bae import BAE
from bae_lens.model.binarize import SURROGATES, Surrogate
from bae_lens.model.config import BAEConfig
from bae_lens.model.store import load, load_sae, save
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training import recipes
from bae_lens.training.config import Recipe, TrainerConfig
from bae_lens.training.distill import distill_encoder
from bae_lens.training.distributed import distributed
from bae_lens.training.schedules import Schedule
from bae_lens.training.together import train_together
from bae_lens.training.trainer import train
from bae_lens.version import __version__

if BAEConfig.architecture() not in SAE_CLASS_REGISTRY:  # SAELens refuses a second registration, a reload needs none
    register_sae_class(BAEConfig.architecture(), BAE, BAEConfig)
if TrainingBAEConfig.architecture() not in SAE_TRAINING_CLASS_REGISTRY:
    register_sae_training_class(TrainingBAEConfig.architecture(), TrainingBAE, TrainingBAEConfig)

STAGES = ("codec",)
"""Folders that are imported when they are first asked for: what they need takes time to load."""


def __getattr__(name: str) -> Any:
    if name in STAGES:
        return importlib.import_module(f"bae_lens.{name}")
    raise AttributeError(f"module 'bae_lens' has no attribute {name!r}")


__all__ = [
    "BAE",
    "SURROGATES",
    "ActivationDataset",
    "Activations",
    "BAEConfig",
    "GridOptions",
    "ModelActivations",
    "Recipe",
    "Schedule",
    "Surrogate",
    "TrainerConfig",
    "TrainingBAE",
    "TrainingBAEConfig",
    "__version__",
    "attach",
    "distill_encoder",
    "distributed",
    "entropy_estimates",
    "feature_effect",
    "harvest",
    "harvest_to_disk",
    "inspect",
    "load",
    "load_for_harvest",
    "load_model",
    "load_sae",
    "read_documents",
    "recipes",
    "save",
    "save_activations",
    "split_documents",
    "steer",
    "task_vector",
    "tokenize",
    "train",
    "train_grid",
    "train_together",
]
