"""From a BAE in training to the inference `BAE` that takes raw vectors."""

from contextlib import AbstractContextManager

import torch

from bae_lens.chunks import rows_at_once
from bae_lens.model.bae import BAE
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.data import Source


def own_generators(device: str) -> AbstractContextManager[None]:
    """A block that leaves the global random generators as they were: SAELens' initialisation draws from them."""
    return torch.random.fork_rng(devices=[torch.device(device)] if torch.device(device).type == "cuda" else [])


def to_inference(sae: TrainingBAE) -> BAE:
    """The inference `BAE` of a trained one, which takes raw vectors: what `save_inference_model` saves."""
    cfg = sae.cfg.get_inference_sae_cfg_dict() | {"metadata": sae.cfg.metadata.to_dict()}
    cfg |= {"refine_weight": sae.raw_refine_weight()}
    with own_generators(sae.cfg.device):
        bae = BAE.from_dict(cfg)
    state = sae.state_dict()
    sae.process_state_dict_for_saving_inference(state)
    bae.process_state_dict_for_loading(state)
    bae.load_state_dict(state)
    return bae


def estimate_from(bae: BAE, source: Source) -> None:
    """Prior and mean norm over the vectors that are known; where codes are refined twice, as the prior prices them."""
    norms, count = 0.0, 0
    for _ in range(2 if bae.cfg.refine_weight else 1):
        ones, count, norms = torch.zeros(bae.d_bits, dtype=torch.long, device=bae.device), 0, 0.0
        for chunk in source.known():
            norms += chunk.norm(dim=1).double().sum().item()
            count += len(chunk)
            for rows in chunk.split(rows_at_once(bae.d_pre)):
                ones += bae.count_ones(rows.to(bae.device))
        bae.set_prior(ones, count)
    bae.cfg.metadata.mean_activation_norm = norms / count
