"""A BAE whose features are split over processes: encoder columns, decoder rows and all that is counted a feature.

Every process has a `TrainingBAE` of its own features, with the whole vectors and the whole decoder bias: what is the same on
all of them is changed in the same way by all. Outside of the processes there is one BAE: the first process makes its start,
and collects it, tensor by tensor, where it is saved.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bae_lens.model.bae import BAE
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.distributed import Parallel
from bae_lens.training.inference import own_generators

SPLIT = {"W_enc": 1, "b_enc": 0, "W_dec": 0, "prior": 0, "at_zero": 0, "act_scale": 0, "warm_stats": 1}
"""The dimension along which each tensor is split; those that are not named are whole everywhere."""
PIECE_BYTES = 2**23
"""Of a tensor that is collected from all processes."""


def check_parallel(recipe: Any, parallel: Parallel) -> None:
    """Raises ValueError, naming the field, unless these processes can share the training of this recipe."""
    sae, trainer, ranks = recipe.sae, recipe.trainer, parallel.ranks
    if trainer.batch_size % ranks.data_size:
        raise ValueError(
            f"batch_size is that of the global minibatch: {trainer.batch_size} vectors cannot be shared by {ranks.data_size} "
            "processes; make it a multiple"
        )
    if ranks.feature_size == 1:
        return
    if sae.d_sae % ranks.feature_size:
        raise ValueError(
            f"d_sae = {sae.d_sae} features cannot be split over {ranks.feature_size} processes: make it a multiple"
        )
    refused = {
        f"objective={sae.objective!r}": sae.objective != "entropy",
        f"revise_at={trainer.revise_at}": bool(trainer.revise_at),
        "apply_b_dec_to_input=True": sae.apply_b_dec_to_input,
    }
    named = [name for name, is_so in refused.items() if is_so]
    if named:
        raise ValueError(
            f"{' and '.join(named)} needs all features in one process: leave --feature-parallel at 1, and split only "
            "the minibatch"
        )


def config_of_part(cfg: Any, parts: int) -> Any:
    """The configuration of one process's features."""
    return cfg if parts == 1 else dataclasses.replace(copy.deepcopy(cfg), d_sae=cfg.d_sae // parts)


def split_bae(sae: TrainingBAE, parallel: Parallel) -> TrainingBAE:
    """This process's part of the BAE that the first process has; the others give one of the size that they are to have."""
    if parallel.world == 1:
        return sae
    part = sae
    if parallel.is_first and parallel.ranks.features is not None:
        with own_generators(sae.cfg.device):
            part = TrainingBAE(config_of_part(sae.cfg, parallel.ranks.feature_size))
    take_state(part, sae.state_dict(), parallel)
    part.ranks = parallel.ranks
    return part


def take_state(part: TrainingBAE, whole: Mapping[str, Tensor], parallel: Parallel) -> None:
    """Gives every process its part of the first one's weights and buffers."""
    if parallel.world > 1:
        kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in part.state_dict().items()}
        part.load_state_dict(spread(whole if parallel.is_first else {}, kinds, part.device, parallel))


def spread(
    whole: Mapping[str, Tensor], parts: Mapping[str, tuple[Any, torch.dtype]], device: Any, parallel: Parallel
) -> dict[str, Tensor]:
    """Each process's parts of the tensors that the first process has, which nobody else need hold as wholes.

    Args:
        parts: Shape and dtype of each part, by the name of its tensor; a name may begin with something before a slash.
    """
    own: dict[str, Tensor] = {}
    features = parallel.ranks.feature_size
    for name, (shape, dtype) in parts.items():
        dimension = SPLIT.get(name.rpartition("/")[2], -1) if len(shape) else -1
        for index in range(features if dimension >= 0 else 1):
            piece = torch.empty(shape, dtype=dtype, device=device)
            if parallel.is_first:
                here = whole[name] if dimension < 0 else whole[name].chunk(features, dimension)[index]
                piece.copy_(here)
            dist.broadcast(piece, 0)
            if dimension < 0 or index == parallel.ranks.feature_index:
                own[name] = piece
    return own


def wholes(parts: Mapping[str, Tensor], parallel: Parallel) -> Iterator[tuple[str, Tensor | None]]:
    """The tensors of the whole BAE in the first process, each in pieces that follow one another in memory.

    None in the others, which have to come along. No more than a piece is held beside the parts.
    """
    ranks = parallel.ranks
    for name, part in parts.items():
        dimension = SPLIT.get(name.rpartition("/")[2], -1) if part.dim() else -1
        if ranks.features is None or dimension < 0:
            yield name, part if parallel.is_first else None
        elif ranks.data_index == 0:
            rows = max(1, PIECE_BYTES // max(part[:1].nbytes * ranks.feature_size, 1))
            if dimension == 0:  # process after process, each some rows at a time
                for holder in range(ranks.feature_size):
                    for piece in part.split(rows):
                        yield name, _fetched(piece, holder, parallel)
            else:  # all of them, some rows at a time
                for piece in part.split(rows):
                    found = [_fetched(piece, holder, parallel) for holder in range(ranks.feature_size)]
                    yield name, torch.cat([f for f in found if f is not None], dimension) if parallel.is_first else None


def _fetched(piece: Tensor, holder: int, parallel: Parallel) -> Tensor | None:
    """In the first process, a piece as another process has it."""
    if parallel.is_first and holder:
        received = torch.empty_like(piece, memory_format=torch.contiguous_format)
        dist.recv(received, holder)
        return received
    if holder and parallel.rank == holder:
        dist.send(piece.contiguous(), 0)
    return piece if parallel.is_first else None


def whole_shape(name: str, part: Tensor, parallel: Parallel) -> tuple[int, ...]:
    """The shape of the tensor that a part is of."""
    shape = list(part.shape)
    dimension = SPLIT.get(name.rpartition("/")[2], -1) if shape else -1
    if dimension >= 0:
        shape[dimension] *= parallel.ranks.feature_size
    return tuple(shape)


def whole_bae(part: BAE, parallel: Parallel) -> BAE:
    """The BAE of all features in the first process; in the others what they had."""
    if parallel.ranks.features is None:
        return part
    whole = part
    if parallel.is_first:
        cfg = dataclasses.replace(copy.deepcopy(part.cfg), d_sae=part.cfg.d_sae * parallel.ranks.feature_size)
        whole = _new(cfg.to_dict())
    places = {name: tensor.view(-1) for name, tensor in whole.state_dict().items()} if parallel.is_first else {}
    for name, piece in wholes(part.state_dict(), parallel):
        if piece is not None:
            places[name][: piece.numel()] = piece.reshape(-1)
            places[name] = places[name][piece.numel() :]
    return whole


def same_bae(bae: BAE | None, parallel: Parallel) -> BAE:
    """The first process's BAE in all of them, each on its own device."""
    cfg = parallel.told(None if bae is None else bae.cfg.to_dict())
    if bae is None or not parallel.is_first:
        bae = _new(cfg | {"device": parallel.device or cfg["device"]})
    if parallel.world == 1:
        return bae
    for tensor in bae.state_dict().values():
        dist.broadcast(tensor, 0)
    return bae


def _new(cfg: dict[str, Any]) -> BAE:
    with own_generators(cfg["device"]):
        return BAE.from_dict(cfg)
