import json

import pytest
import torch
from sae_lens import SAE, Transcoder

import bae_lens
from bae_lens.activations.models import find_hook_point
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.fidelity import ce_loss
from bae_lens.cli import main
from bae_lens.compare.transcoder import cross_ce_recovered, cross_splice, open_pairs, train_transcoder

SOURCE, TARGET = "blocks.0.ln2.hook_normalized", "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def pairs(acts):
    return open_pairs(acts, SOURCE, TARGET)


def a_trainer(steps, learning_rate=3e-3):
    return bae_lens.TrainerConfig(
        steps=steps,
        batch_size=64,
        learning_rate=learning_rate,
        learning_rate_schedule=bae_lens.Schedule(),
        center=False,
        rescale=False,
    )


def test_pairs_are_of_the_same_tokens(pairs, model):
    windows = pairs.inputs.windows
    for hook, vectors in ((SOURCE, pairs.inputs.held_out), (TARGET, pairs.held_out_target)):
        found = bae_lens.harvest(model, windows, hook, progress=False).vectors
        torch.testing.assert_close(found, vectors[: len(found)], rtol=1e-3, atol=1e-3)


def test_a_transcoder_is_saelens_own_and_computes_eq_15(pairs, tmp_path):
    train_transcoder(pairs.inputs.train, pairs.train_target, 64, a_trainer(60)).save_model(tmp_path / "tc")
    found = SAE.load_from_disk(tmp_path / "tc")
    assert isinstance(found, Transcoder)
    x = pairs.inputs.held_out[:30].double()
    W_in, W_out, b = (w.detach().double() for w in (found.W_enc, found.W_dec, found.b_dec))
    expected = (x @ W_in).clamp_min(0) @ W_out + b
    torch.testing.assert_close(found.decode(found.encode(x.float())).double(), expected, rtol=1e-4, atol=1e-3)


def test_training_goes_towards_the_target_and_not_the_input(pairs):
    def fvu(steps):
        found = train_transcoder(pairs.inputs.train, pairs.train_target, 128, a_trainer(steps))
        target = pairs.held_out_target
        x_hat = found.decode(found.encode(pairs.inputs.held_out))
        return ((x_hat - target).pow(2).sum() / (target - target.mean(0)).pow(2).sum()).item()

    assert fvu(150) < 0.7 * fvu(5)


def test_the_l1_norm_is_of_what_is_over_the_gate_only(pairs):
    x, y, alpha = pairs.inputs.train[:64].double(), pairs.train_target[:64].double(), 1e-2
    start, after = (train_transcoder(x.float(), y.float(), 16, a_trainer(1, rate), alpha) for rate in (1e-12, 1e-3))
    weights = [w.detach().double().requires_grad_() for w in (start.W_enc, start.W_dec, start.b_dec)]
    pre = x @ weights[0]
    loss = (pre.relu() @ weights[1] + weights[2] - y).pow(2).mean() + alpha * pre[pre > 0.5].sum()
    plain = (pre.relu() @ weights[1] + weights[2] - y).pow(2).mean() + alpha * pre[pre > 0].sum()
    gradient, other = (torch.autograd.grad(one, weights[0], retain_graph=True)[0] for one in (loss, plain))
    step = after.W_enc.detach().double() - weights[0].detach()
    clear = gradient.abs() > 1e-4
    torch.testing.assert_close(step[clear], -1e-3 * gradient[clear].sign(), rtol=0.05, atol=1e-6)
    assert (gradient - other).abs().max() > 1e-4


def test_ce_recovered_is_of_the_state_that_the_transcoder_makes(pairs, model):
    found = train_transcoder(pairs.inputs.train, pairs.train_target, 64, a_trainer(100))
    splice = cross_splice(pairs)
    assert splice is not None
    from_zero, _ = cross_ce_recovered(found, splice)
    windows, inputs = splice.windows, {}
    name = find_hook_point(model, SOURCE).name

    def by_hand(row):  # a window at a time, its input taken from a run of its own
        length = int(windows.lengths[row])
        tokens = windows.tokens[row : row + 1, :length]
        _, cache = model.run_with_cache(tokens, names_filter=[name])
        made = found.decode(found.encode(cache[name][:, 1:]))
        one = type(windows)(tokens, windows.lengths[row : row + 1], windows.document[row : row + 1])
        inputs[row] = length - 2
        return ce_loss(model, one, TARGET, lambda x: made, progress=False) * (length - 2)

    spliced = sum(by_hand(row) for row in range(len(windows.lengths))) / sum(inputs.values())
    expected = (splice.losses.zero_ablated - spliced) / (splice.losses.zero_ablated - splice.losses.clean)
    assert from_zero == pytest.approx(expected, abs=1e-4)
    assert not find_hook_point(model, SOURCE).has_hooks()


def test_a_transcoder_that_writes_before_it_reads_is_refused(acts):
    backwards = open_pairs(acts, TARGET, SOURCE)
    found = train_transcoder(backwards.inputs.train, backwards.train_target, 16, a_trainer(2))
    splice = cross_splice(backwards)
    assert splice is not None
    with pytest.raises(ValueError, match=r"blocks\.0\.ln2\.hook_normalized comes before blocks\.1\.hook_resid_pre"):
        cross_ce_recovered(found, splice)


def test_bits_a_token_are_at_the_fvu_of_the_target(pairs):
    found = train_transcoder(pairs.inputs.train, pairs.train_target, 64, a_trainer(150))
    length = code_length(found, pairs.inputs.train, pairs.inputs.held_out, target=pairs.held_out_target)
    target = pairs.held_out_target.double()
    x_hat = found.decode(found.encode(pairs.inputs.held_out)).double()
    fvu = ((x_hat - target).pow(2).sum() / (target - target.mean(0)).pow(2).sum()).item()
    assert fvu <= length.fvu <= 1.02 * fvu + 1e-9 or length.fvu == pytest.approx(fvu, rel=0.02)
    assert length.bits == pytest.approx(length.which + length.magnitudes)


def test_the_command_trains_measures_reports_and_goes_on(acts, tmp_path, capsys):
    args = ["transcoder", "--activations", str(acts), "--from", SOURCE, "--to", TARGET, "--out", str(tmp_path / "tc")]
    args += ["--steps", "5", "--expansion", "0.5", "--alpha", "1e-7", "1e-3"]
    assert main(args) == 0
    first = json.loads((tmp_path / "tc/results.json").read_text())["lines"]
    assert [line["setting"] for line in first] == ["alpha = 1e-07", "alpha = 0.001"]
    assert all(len(line["figures"]) == 2 and line["figures"][0]["ce_from_zero"] is not None for line in first)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tc/cells").rglob("*.json")}
    capsys.readouterr()
    assert main(args) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tc/cells").rglob("*.json")} == before
    sae = SAE.load_from_disk(tmp_path / "tc/saes/x0.5/transcoder_paper/1e-07/seed0")
    assert sae.cfg.metadata.hook_name_out == TARGET
    assert main([*args, "--steps", "6"]) == 2
    assert "steps was 5 and is 6" in capsys.readouterr().err


def test_one_hook_point_is_no_pair_and_an_unknown_one_is_refused(acts):
    with pytest.raises(ValueError, match="from one hook point to another, both given are"):
        open_pairs(acts, TARGET, TARGET)
    with pytest.raises(ValueError, match="holds no activations of 'blocks.1.hook_resid_post'"):
        open_pairs(acts, SOURCE, "blocks.1.hook_resid_post")


def test_a_negative_alpha_and_targets_that_are_no_pairs_are_refused(pairs):
    with pytest.raises(ValueError, match="alpha of relu_paper must be at least 0"):
        train_transcoder(pairs.inputs.train, pairs.train_target, 8, a_trainer(1), -1.0)
    with pytest.raises(ValueError, match="are no pairs"):
        train_transcoder(pairs.inputs.train, pairs.train_target[1:], 8, a_trainer(1))
