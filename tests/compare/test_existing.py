import json

import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, Transcoder, TranscoderConfig
from sae_lens.saes.sae import SAEMetadata

import bae_lens
from bae_lens.analyze.fidelity import ablation_baseline, fidelity
from bae_lens.analyze.statistics import code_statistics
from bae_lens.cli import main
from bae_lens.compare.data import open_data
from bae_lens.compare.existing import compare_existing, open_saes

HOOK = "blocks.1.hook_resid_pre"


def saved(path, kind=StandardSAE, config=StandardSAEConfig, hook_name=HOOK, d_in=128, **fields):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        sae = kind(config(d_in=d_in, d_sae=32, metadata=SAEMetadata(hook_name=hook_name), **fields))
    sae.save_model(path)
    return path


@pytest.fixture
def bae_dir(make_bae, vectors, tmp_path):
    bae = make_bae()
    bae.estimate_prior(vectors)
    return bae_lens.save(bae, tmp_path / "bae")


def test_saes_that_exist_are_measured_as_they_are_in_both_forms_of_the_command(acts, bae_dir, tmp_path, model, capsys):
    sae_dir = saved(tmp_path / "relu")
    args = ["compare", "--activations", str(acts), "--hook", HOOK, "--bae", str(bae_dir), "--sae", str(sae_dir)]
    assert main([*args, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "Nothing was trained or tuned" in out
    lines = {line["method"]: line for line in json.loads((tmp_path / "out/results.json").read_text())["lines"]}
    data = open_data(acts, HOOK)
    losses = ablation_baseline(model, data.windows, HOOK, data.train.mean(0))
    for name, sae in (("bae", bae_lens.load(bae_dir)), ("relu", bae_lens.load_sae(sae_dir))):
        found, expected = lines[name]["figures"][0], code_statistics(sae, data.held_out)
        assert found["fvu"] == pytest.approx(expected.fvu, rel=1e-6)
        assert found["l0"] == pytest.approx(expected.l0, rel=1e-6)
        assert found["ce_from_zero"] == pytest.approx(fidelity(model, sae, data.windows, losses).recovered_from_zero, abs=1e-5)
        x, x_hat = data.held_out.double(), sae(data.held_out).detach().double()
        assert found["loss"] == pytest.approx((x - x_hat).square().mean().item(), rel=1e-4)
        cosine = (x * x_hat).sum(1) / (x.norm(dim=1) * x_hat.norm(dim=1))
        assert found["cosine"] == pytest.approx(cosine.mean().item(), abs=1e-5)
    assert lines["bae"]["figures"][0]["refined_bits"] is None
    for name in ("report.md", "results.csv", "frequency.png", "magnitudes.png"):
        assert (tmp_path / "out" / name).stat().st_size > 500


def test_what_was_measured_is_not_measured_again_and_another_sae_of_that_name_is_refused(acts, bae_dir, make_bae, tmp_path):
    data, said = open_data(acts, HOOK)._replace(model=None, windows=None), []
    for _ in range(2):
        compare_existing(open_saes([bae_dir], []), data, tmp_path / "out", say=said.append)
    assert len(said) == 1
    (found,) = open_saes([bae_dir], [])
    found.sae.W_dec.data.mul_(2)
    with pytest.raises(ValueError, match="is of another SAE of this name"):
        compare_existing([found], data, tmp_path / "out", say=said.append)


def test_without_a_model_the_ce_column_is_absent_and_it_is_said(acts, bae_dir, tmp_path):
    data = open_data(acts, HOOK)._replace(model=None, windows=None, without_model="the moon was full")
    found = compare_existing(open_saes([bae_dir], []), data, tmp_path / "out", say=lambda line: None)
    assert found.lines[0].figures[0].ce_from_zero is None
    assert "CE recovered was not measured: the moon was full." in (tmp_path / "out/report.md").read_text()


def test_an_sae_without_a_hook_point_is_asked_for_it_and_never_guessed(tmp_path, make_bae):
    plain = saved(tmp_path / "plain", hook_name=None)
    with pytest.raises(ValueError, match="does not say at which hook point it was trained"):
        open_saes([], [plain])
    nameless = bae_lens.save(make_bae(hook_name=None), tmp_path / "nameless")
    with pytest.raises(ValueError, match="does not say at which hook point it was trained"):
        open_saes([nameless], [])
    assert [one.sae.cfg.metadata.hook_name for one in open_saes([nameless], [plain], HOOK)] == [HOOK, HOOK]


def test_saes_of_different_hook_points_are_not_compared(tmp_path, bae_dir):
    other = saved(tmp_path / "other", hook_name="blocks.2.hook_resid_pre")
    with pytest.raises(ValueError, match=r"bae is of blocks\.1\.hook_resid_pre and .*other of blocks\.2\.hook_resid_pre"):
        open_saes([bae_dir], [other])
    with pytest.raises(ValueError, match="was trained at blocks.2.hook_resid_pre, not at blocks.1.hook_resid_pre"):
        open_saes([], [other], HOOK)


def test_an_sae_of_another_hook_point_or_width_than_the_activations_is_refused(acts, tmp_path):
    data = open_data(acts, HOOK)._replace(model=None, windows=None)
    other = open_saes([], [saved(tmp_path / "other", hook_name="blocks.2.hook_resid_pre")])
    with pytest.raises(ValueError, match="other was trained at blocks.2.hook_resid_pre, the activations are of blocks.1"):
        compare_existing(other, data, tmp_path / "out")
    narrow = open_saes([], [saved(tmp_path / "narrow", d_in=64)])
    with pytest.raises(ValueError, match="narrow takes vectors of width 64, the activations are 128 wide"):
        compare_existing(narrow, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_measured_as_an_sae_is_refused(tmp_path):
    transcoder = saved(tmp_path / "tc", Transcoder, TranscoderConfig, d_out=128, apply_b_dec_to_input=False)
    with pytest.raises(ValueError, match="is a transcoder"):
        open_saes([], [transcoder])
    normed = saved(tmp_path / "ln", JumpReLUSAE, JumpReLUSAEConfig, normalize_activations="layer_norm")
    with pytest.raises(ValueError, match=r"normalises each vector by itself \(layer_norm\)"):
        open_saes([], [normed])
    with pytest.raises(ValueError, match="no SAE is given"):
        open_saes([], [])
    with pytest.raises(FileNotFoundError, match="is no directory, and no release"):
        open_saes([], [tmp_path / "nothing"])


def test_saes_that_end_alike_are_told_apart(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = open_saes([], [saved(tmp_path / "a/sae"), saved(tmp_path / "b/sae")])
    assert [one.name for one in found] == ["sae-1", "sae-2"]


def test_training_and_measuring_what_there_is_are_not_mixed(acts, bae_dir, tmp_path, capsys):
    args = ["compare", "--activations", str(acts), "--hook", HOOK, "--out", str(tmp_path / "out"), "--bae", str(bae_dir)]
    assert main([*args, "--with", "topk"]) == 2
    assert "give the one or the other" in capsys.readouterr().err
