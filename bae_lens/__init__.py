"""Binary Autoencoders (arXiv 2509.20997) for TransformerLens and SAELens. Importing this registers "bae" with SAELens."""

from sae_lens import register_sae_class, register_sae_training_class
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest import Activations, harvest
from bae_lens.activations.models import load_model
from bae_lens.activations.saving import save_activations
from bae_lens.activations.text import read_documents, split_documents, tokenize
from bae_lens.intervene.attach import attach
from bae_lens.intervene.inspect import inspect
from bae_lens.intervene.steer import steer
from bae_lens.model.bae import BAE
from bae_lens.model.binarize import SURROGATES, Surrogate
from bae_lens.model.config import BAEConfig
from bae_lens.model.store import load, load_sae, save
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training import recipes
from bae_lens.training.config import Recipe, TrainerConfig
from bae_lens.training.distill import distill_encoder
from bae_lens.training.schedules import Schedule
from bae_lens.training.trainer import train
from bae_lens.version import __version__

if BAEConfig.architecture() not in SAE_CLASS_REGISTRY:  # SAELens refuses a second registration, a reload needs none
    register_sae_class(BAEConfig.architecture(), BAE, BAEConfig)
if TrainingBAEConfig.architecture() not in SAE_TRAINING_CLASS_REGISTRY:
    register_sae_training_class(TrainingBAEConfig.architecture(), TrainingBAE, TrainingBAEConfig)

__all__ = [
    "BAE",
    "SURROGATES",
    "ActivationDataset",
    "Activations",
    "BAEConfig",
    "Recipe",
    "Schedule",
    "Surrogate",
    "TrainerConfig",
    "TrainingBAE",
    "TrainingBAEConfig",
    "__version__",
    "attach",
    "distill_encoder",
    "harvest",
    "inspect",
    "load",
    "load_model",
    "load_sae",
    "read_documents",
    "recipes",
    "save",
    "save_activations",
    "split_documents",
    "steer",
    "tokenize",
    "train",
]
