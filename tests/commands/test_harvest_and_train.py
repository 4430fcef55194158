"""The commands, from text to a BAE, in this process."""

import json

import pytest
import torch

import bae_lens
from bae_lens.activations.dataset import ActivationDataset
from bae_lens.cli import main
from bae_lens.demo import demo_model_dir

HOOK = "blocks.1.hook_resid_pre"
QUICK = ["--steps", "30", "--expansion", "1", "--set", "batch_size=128"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(f"Return the number of items in list {n}, or an error. " * (1 + n % 5) for n in range(60)))
    return str(path)


@pytest.fixture(scope="module")
def acts(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("acts") / "acts"
    options = ["--hooks", "blocks.*.hook_resid_pre", "--context-size", "64", "--dtype", "bf16"]
    assert main(["harvest", "--model", str(demo_model_dir()), "--text", text, *options, "--out", str(out)]) == 0
    return out


def test_harvest_says_the_size_first_and_what_to_do_next(acts, text, capsys, tmp_path):
    command = ["harvest", "--model", str(demo_model_dir()), "--text", text, "--hooks", HOOK, "--out", str(tmp_path / "a")]
    assert main([*command, "--positions", "1,2", "--tokens", "1_00"]) == 0
    printed = capsys.readouterr().out
    assert "BOS is left out" in printed
    assert "at most 100 vectors a hook point: " in printed
    assert f"bae-lens train --activations {tmp_path / 'a'} --hook {HOOK}" in printed
    assert ActivationDataset(tmp_path / "a").positions.unique().tolist() == [1, 2]


def test_train_makes_a_bae_that_says_where_it_belongs_and_shows_fvu_with_entropy(acts, capsys, tmp_path):
    command = ["train", "--activations", str(acts), "--hook", HOOK, *QUICK, "--out", str(tmp_path / "l1")]
    assert main([*command, "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert f"FVU {found['fvu']:.4f} at a marginal entropy of {found['entropy']:.1f} bits a token" in printed
    bae = bae_lens.load(tmp_path / "l1")
    metadata = bae.cfg.metadata
    assert (metadata.hook_name, metadata.context_size, metadata.prepend_bos) == (HOOK, 64, True)
    assert metadata.model_name == str(demo_model_dir())
    held_out = ActivationDataset(acts, HOOK).split(0.15, seed=0).held_out.tensor()
    residual = (bae(held_out) - held_out).square().sum() / (held_out - held_out.mean(0)).square().sum()
    assert found["fvu"] == pytest.approx(residual.item(), rel=1e-4)
    written = (tmp_path / "l1" / "sae_weights.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert (tmp_path / "l1" / "sae_weights.safetensors").stat().st_mtime_ns == written
    assert main([*command[:-2], "--set", "entropy_weight=0.3", "--out", str(tmp_path / "l1")]) == 2
    assert "entropy_weight was 0.1 and is 0.3" in capsys.readouterr().err


def test_train_takes_positions_and_bits_per_feature(acts, tmp_path):
    command = ["train", "--activations", str(acts), "--hook", HOOK, *QUICK[:4], "--out", str(tmp_path / "run")]
    assert main([*command, "--positions", "2", "3", "--bits-per-feature", "2", "--set", "batch_size=16"]) == 0
    bae = bae_lens.load(tmp_path / "run")
    assert bae.cfg.bits_per_feature == 2
    assert bae.cfg.prior_samples == len(ActivationDataset(acts, HOOK, [2, 3]).split(0.15, seed=0).train)


@pytest.mark.parametrize("words", [["1,2", "--tokens"], ["1", "2", "--tokens"], ["1, 2", "--tokens"], ["1,", "2", "--tokens"]])
def test_positions_are_taken_with_spaces_and_with_commas_by_both_commands(words, acts, text, tmp_path):
    from bae_lens.cli import parse
    from bae_lens.commands.text_options import positions_of

    asked = parse(["harvest", "--text", text, "--positions", *words, "5", "--out", str(tmp_path / "a")])
    assert positions_of(asked.positions) == [1, 2]
    asked = parse(["train", "--activations", str(acts), "--positions", *words[:-1], "--out", str(tmp_path / "run")])
    assert positions_of(asked.positions) == [1, 2]


def test_train_goes_straight_from_the_model_too(text, capsys, tmp_path):
    command = [
        "train",
        "--model",
        str(demo_model_dir()),
        "--text",
        text,
        "--hook",
        HOOK,
        *QUICK,
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(command) == 0
    assert "held out: FVU" in capsys.readouterr().out
    assert torch.isfinite(bae_lens.load(tmp_path / "run").W_enc).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --activations"),
        (["--activations", "ACTS"], "holds 4 hook points: say which one"),
        (["--activations", "ACTS", "--hook", "blocks.1.hook_resid_prr"], "did you mean"),
        (["--activations", "ACTS", "--hook", HOOK, "--recipe", "recomended"], "did you mean 'recommended'"),
        (
            ["--activations", "ACTS", "--hook", HOOK, "--recipe", "rate_distortion", "--bits-per-feature", "2"],
            "has no bits_per",
        ),
        (["--activations", "ACTS", "--hook", HOOK, "--set", "entropy_wieght=1"], "did you mean 'entropy_weight'"),
        (["--activations", "/nowhere"], "holds no activations"),
        (["--activations", "ACTS", "--hook", HOOK, "--text", "x.txt"], "--text goes with --model"),
        (["--activations", "ACTS", "--hook", HOOK, "--held-out", "1.5"], "must be over 0 and under 1"),
        (["--activations", "ACTS", "--hook", HOOK, "--measured", "0"], "--measured must be at least 1"),
        (["--model", str(demo_model_dir()), "--hook", HOOK, "--text", "TEXT", "--held-out", "1.5"], "over 0 and under 1"),
        (
            ["--model", str(demo_model_dir()), "--hook", HOOK, "--text", "TEXT", "--positions", "200"],
            "sequences were too short; 200 tokens besides BOS are needed",
        ),
        (["--activations", "ACTS", "--hook", HOOK, "--positions", "last"], "bae-lens harvest --positions last"),
        (["--activations", "ACTS", "--hook", HOOK, "--positions", "1,900"], "holds no vectors at position 900"),
        (["--model", str(demo_model_dir())], "say which hook point"),
        (["--model", str(demo_model_dir()), "--hook", HOOK], "give --text with --model"),
    ],
)
def test_wrong_input_to_train_is_said_in_a_line(acts, text, options, message, capsys, tmp_path):
    options = [{"ACTS": str(acts), "TEXT": text}.get(option, option) for option in options]
    assert main(["train", *options, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--positions", "1,two"], '--positions takes places as 1,2,4 or 1 2 4, or "all", or "last"; got \'1,two\''),
        (["--positions", "last", "3"], "--positions takes places"),
        (["--positions", "1,256"], "position 256 is beyond the model's context of 256 tokens"),
        (["--hooks", "blocks.*.hook_resid_prr"], "did you mean"),
        (["--model-dtype", "fp8"], "unknown dtype 'fp8'"),
        (["--model", str(demo_model_dir())], "give --text with --model"),
    ],
)
def test_wrong_input_to_harvest_is_said_in_a_line(options, message, text, capsys, tmp_path):
    options = options if "--model" in options else ["--text", text, *options]
    assert main(["harvest", *options, "--out", str(tmp_path / "acts")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "acts").exists()
