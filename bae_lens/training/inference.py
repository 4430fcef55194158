"""From a BAE in training to the inference `BAE` that takes raw vectors."""

from contextlib import AbstractContextManager

import torch

from bae_lens.chunks import rows_at_once
from bae_lens.model.bae import BAE
from bae_lens.objective.ranks import ALONE, Ranks
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.data import Source, shared_chunks


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


def estimate_from(bae: BAE, source: Source, ranks: Ranks = ALONE) -> None:
    """Prior and mean norm over the vectors that are known; where codes are refined twice, as the prior prices them.

    Processes that share vectors take a part of them each.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=bae.device)
    for _ in range(2 if bae.cfg.refine_weight else 1):
        ones = torch.zeros(bae.d_bits, dtype=torch.long, device=bae.device)
        norms, count = 0.0, 0
        for chunk in shared_chunks(source, ranks):
            norms += chunk.norm(dim=1).double().sum().item()
            count += len(chunk)
            for rows in chunk.split(rows_at_once(bae.d_pre)):
                ones += bae.count_ones(rows.to(bae.device))
        sums = ranks.batch_sum(sums.new_tensor([norms, count]))
        bae.set_prior(ranks.batch_sum(ones), int(sums[1]))
    bae.cfg.metadata.mean_activation_norm = (sums[0] / sums[1]).item()
