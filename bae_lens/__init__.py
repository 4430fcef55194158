"""Binary Autoencoders (arXiv 2509.20997) for TransformerLens and SAELens. Importing this registers "bae" with SAELens."""

from sae_lens import register_sae_class, register_sae_training_class
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

from bae_lens.activations.harvest import Activations, harvest
from bae_lens.activations.models import load_model
from bae_lens.activations.text import read_documents, split_documents, tokenize
from bae_lens.model.bae import BAE
from bae_lens.model.binarize import SURROGATES
from bae_lens.model.config import BAEConfig
from bae_lens.objective.training_bae import TrainingBAE, TrainingBAEConfig
from bae_lens.training import recipes
from bae_lens.training.trainer import TrainerConfig, load, save, train

__version__ = "0.1.0"

if BAEConfig.architecture() not in SAE_CLASS_REGISTRY:  # SAELens refuses a second registration, a reload needs none
    register_sae_class(BAEConfig.architecture(), BAE, BAEConfig)
if TrainingBAEConfig.architecture() not in SAE_TRAINING_CLASS_REGISTRY:
    register_sae_training_class(TrainingBAEConfig.architecture(), TrainingBAE, TrainingBAEConfig)
