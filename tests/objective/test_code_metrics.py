import math

import pytest
import torch

from bae_lens.objective.metrics import code_metrics, level_metrics


def counted(levels):
    """Entropy, live, dead, stuck at one, dense and L0 of whole levels ``(samples, features)``, counted a feature at a time."""
    found = dict.fromkeys(("entropy", "live", "dead", "stuck_at_one", "dense", "l0"), 0.0)
    for column in levels.T.tolist():
        shares = [column.count(level) / len(column) for level in set(column)]
        on = sum(level > 0 for level in column) / len(column)
        found["entropy"] -= sum(share * math.log2(share) for share in shares)
        found["live"] += len(shares) > 1
        found["dead"] += len(shares) == 1
        found["stuck_at_one"] += len(shares) == 1 and column[0] > 0
        found["dense"] += on > 0.1
        found["l0"] += on
    return found


def test_metrics_of_nested_bits_are_those_of_their_features_levels():
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(-9, 4, (200, 12), generator=generator).clamp_min(0)
    levels[:, 0] = 0
    levels[:, 1] = 2
    levels[:, 2] = torch.randint(1, 4, (200,), generator=generator)  # always on, and yet not dead
    passed = torch.stack([(levels > j).float().mean(0) for j in range(3)], 1)
    metrics = level_metrics(passed, 0.25)
    expected = counted(levels)
    assert {name: getattr(metrics, name).item() for name in expected} == pytest.approx(expected, rel=1e-6)
    assert (expected["dead"], expected["stuck_at_one"]) == (2, 1)
    assert metrics.fvu == 0.25


def test_metrics_of_bits_are_those_of_levels_nought_and_one():
    levels = (torch.rand(300, 20, generator=torch.Generator().manual_seed(1)) < torch.linspace(-0.1, 1.1, 20)).long()
    expected = counted(levels)
    for metrics in (code_metrics(levels.float().mean(0), 0.0), level_metrics(levels.float().mean(0).unsqueeze(1), 0.0)):
        assert {name: getattr(metrics, name).item() for name in expected} == pytest.approx(expected, rel=1e-6)


def test_a_code_that_never_changes_has_an_entropy_of_nought_without_a_sign():
    for passed in (torch.zeros(4, 3), torch.ones(4, 3)):
        assert math.copysign(1, level_metrics(passed, 0.0).entropy.item()) == 1
