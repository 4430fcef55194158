import pytest
import torch
from embedded import HOOK

from bae_lens.analyze.fidelity import ablation_baseline, ce_loss, fidelity, fidelity_of


def loss_by_hand(model, windows, residual_to):
    """Window by window without padding; nats a token from the third on."""
    total, count = 0.0, 0
    for tokens, length in zip(windows.tokens, windows.lengths.tolist(), strict=True):
        if length < 3:
            continue
        row = tokens[:length].unsqueeze(0)

        def replace(tensor, hook):
            changed = tensor.clone()
            changed[:, 1:] = residual_to(tensor[:, 1:])
            return changed

        with torch.no_grad():
            logits = model.run_with_hooks(row, fwd_hooks=[(HOOK, replace)])
        log_probs = logits[0].double().log_softmax(-1)
        total -= sum(log_probs[i - 1, row[0, i]].item() for i in range(2, length))
        count += length - 2
    return total / count


def test_losses_are_those_of_each_window_alone(model, make_bae, windows, vectors):
    bae = make_bae()
    mean = vectors.mean(0)
    baseline = ablation_baseline(model, windows, HOOK, mean, batch_size=3)
    found = fidelity(model, bae, windows, baseline, batch_size=2)
    assert baseline.clean == pytest.approx(loss_by_hand(model, windows, lambda x: x), rel=1e-4)
    assert baseline.zero_ablated == pytest.approx(loss_by_hand(model, windows, lambda x: 0 * x), rel=1e-4)
    assert baseline.mean_ablated == pytest.approx(loss_by_hand(model, windows, lambda x: mean.expand_as(x)), rel=1e-4)
    assert found.spliced == pytest.approx(loss_by_hand(model, windows, bae), rel=1e-4)
    assert found.recovered_from_zero == pytest.approx((found.zero_ablated - found.spliced) / (found.zero_ablated - found.clean))
    assert found.recovered_from_mean == pytest.approx((found.mean_ablated - found.spliced) / (found.mean_ablated - found.clean))


def test_all_kinds_of_model_give_the_same_loss(any_model, model, windows, make_bae):
    bae = make_bae()
    losses = [ce_loss(m, windows, HOOK, bae, progress=False) for m in (any_model, model)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_any_reconstruction_is_measured_as_an_saes_is(model, make_bae, windows, vectors):
    bae = make_bae()
    baseline = ablation_baseline(model, windows, HOOK, vectors.mean(0))
    assert fidelity_of(model, lambda x: bae(x), windows, HOOK, baseline) == fidelity(model, bae, windows, baseline)


def test_a_perfect_reconstruction_recovers_everything(model, windows):
    clean = ce_loss(model, windows, HOOK, progress=False)
    assert ce_loss(model, windows, HOOK, lambda x: x, progress=False) == pytest.approx(clean, rel=1e-6)
