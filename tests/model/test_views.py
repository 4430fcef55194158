import subprocess
import sys

import pytest
import torch
from embedded import HOOK

import bae_lens
from bae_lens.model.views import describe_export, export_jumprelu, graded_view


@pytest.fixture
def trained_prior(make_bae, vectors):
    def make(c=1, **fields):
        bae = make_bae(c, **fields)
        bae.estimate_prior(vectors)
        return bae

    return make


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("c", [1, 3])
def test_a_view_reconstructs_what_the_bae_reconstructs(trained_prior, vectors, c, folded):
    bae = trained_prior(c)
    if folded:
        bae.fold_W_dec_norm()
    view = graded_view(bae)
    torch.testing.assert_close(view(vectors), bae(vectors), atol=1e-5, rtol=1e-5)
    assert torch.equal(view.encode(vectors) > 0, bae.encode(vectors) > 0)


def test_graded_activations_rank_tokens_within_a_feature_by_pre_activation(trained_prior, vectors):
    bae = trained_prior()
    acts = graded_view(bae).encode(vectors)
    _, pre = bae.encode_bits(vectors)
    for feature in range(48):
        on = pre[:, feature] >= 0
        values, order = acts[on, feature].sort()
        assert torch.equal(pre[on, feature][order].sort().values, pre[on, feature][order])
        assert values.unique().numel() == pre[on, feature].unique().numel()
    assert acts[acts > 0].min() >= 0.5
    assert acts.max() <= 1


def test_decoding_stays_linear_for_steering(trained_prior, vectors):
    bae = trained_prior()
    view = graded_view(bae)
    acts = view.encode(vectors)
    steered = acts.clone()
    steered[:, 5] = 4.0
    expected = bae.encode(vectors)
    expected[:, 5] = 4.0
    torch.testing.assert_close(view.decode(steered), bae.decode(expected), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(view.decode(torch.zeros_like(acts)), bae.b_dec.expand(len(vectors), -1))


def test_a_view_has_the_name_it_was_asked_for_and_shares_the_weights(trained_prior):
    bae = trained_prior()
    assert graded_view(bae).cfg.architecture() == "bae"
    assert graded_view(bae).W_dec.data_ptr() == bae.W_dec.data_ptr()
    view = graded_view(bae, "standard")
    assert view.cfg.architecture() == "standard"
    assert view.cfg.metadata.hook_name == HOOK
    assert bae.cfg.architecture() == "bae"
    with pytest.raises(ValueError, match="did you mean 'standard'"):
        graded_view(bae, "standrd")


def test_a_standard_view_can_be_cut_to_a_few_features_and_folded(trained_prior, vectors):
    """What dashboard tools do: slice W_enc, b_enc and W_dec, and fold the decoder's norm without asking."""
    bae = trained_prior()
    bae.fold_W_dec_norm()
    bae.W_enc.data[:, 9], bae.b_enc.data[9] = 0, 0
    before = bae(vectors)
    view = graded_view(bae, "standard")
    whole = view.encode(vectors)
    torch.testing.assert_close(view(vectors), before, atol=1e-5, rtol=1e-5)
    assert (whole[:, 9] > 0).all()
    view.fold_W_dec_norm()
    torch.testing.assert_close(view(vectors), before, atol=1e-5, rtol=1e-5)
    view.W_enc.data, view.b_enc.data, view.W_dec.data = view.W_enc.data[:, 3:11], view.b_enc.data[3:11], view.W_dec.data[3:11]
    torch.testing.assert_close(view.encode(vectors), whole[:, 3:11])
    assert torch.equal(bae(vectors), before)
    with pytest.raises(ValueError, match="one bit a feature"):
        graded_view(trained_prior(3), "standard")


def test_a_view_of_a_bae_without_a_prior_is_refused(make_bae):
    with pytest.raises(ValueError, match="estimate_prior"):
        graded_view(make_bae())


def test_a_view_can_be_attached_and_steered(model, trained_prior):
    bae = trained_prior()
    view = graded_view(bae)
    with torch.no_grad():
        with bae_lens.attach(model, bae):
            expected = model("Return the list.")
        with bae_lens.attach(model, view):
            torch.testing.assert_close(model("Return the list."), expected, atol=1e-4, rtol=1e-4)
        with bae_lens.steer(model, view, {3: 2.0}) as steering:
            model("Return the list.")
    assert steering.changed[3]


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
def test_an_export_loads_with_plain_saelens_and_keeps_its_tolerance(trained_prior, vectors, tmp_path, tolerance):
    bae = trained_prior()
    bae.fold_W_dec_norm()
    sae, report = export_jumprelu(bae, vectors, tolerance)
    sae.save_model(tmp_path)
    torch.save(vectors, tmp_path / "vectors.pt")
    script = (
        "import sys, torch\nfrom sae_lens import SAE\nassert 'bae_lens' not in sys.modules\n"
        f"sae = SAE.load_from_disk({str(tmp_path)!r}); x = torch.load({str(tmp_path / 'vectors.pt')!r}, weights_only=True)\n"
        f"torch.save((sae.encode(x).detach(), sae(x).detach()), {str(tmp_path / 'out.pt')!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    acts, x_hat = torch.load(tmp_path / "out.pt", weights_only=True)
    bits = bae.bits(vectors)
    assert (((acts > 0) != (bits > 0)).float().mean().item()) == pytest.approx(report.bits_changed, abs=1e-9)
    assert report.bits_changed < 1e-3
    assert acts[acts > 0].min() >= 1 - 1e-6
    assert acts.max() <= 1 + tolerance * (1 + 1e-3)
    relative = ((x_hat - bae(vectors)).norm() / bae(vectors).norm()).item()
    assert relative == pytest.approx(report.reconstruction_error, rel=1e-3)
    assert relative < 3 * tolerance
    assert f"asked: 1 + {tolerance:g}" in describe_export(report)


def test_an_export_keeps_the_side_of_zero(make_bae):
    bae = make_bae(d_in=2, d_sae=2)
    bae.W_enc.data, bae.b_enc.data = torch.eye(2), torch.zeros(2)
    bae.at_zero[1] = 0
    sae, _ = export_jumprelu(bae, torch.eye(2))
    assert (sae.encode(torch.zeros(1, 2)) > 0).tolist() == [[True, False]]


def test_what_cannot_be_exported_is_refused(make_bae, vectors):
    with pytest.raises(ValueError, match="one bit a feature"):
        export_jumprelu(make_bae(3), vectors)
    with pytest.raises(ValueError, match="tolerance"):
        export_jumprelu(make_bae(), vectors, 0.0)
