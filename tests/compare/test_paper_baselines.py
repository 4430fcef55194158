import pytest
import torch
from sae_lens import SAE, JumpReLUSAE, StandardSAE, TopKSAE

import bae_lens
from bae_lens.compare.paper_baselines import fit_linear, gated_relu, paper_trainer, train_paper_baseline

CASES = [("relu_paper", 1e-7, StandardSAE), ("topk_paper", 5, TopKSAE), ("gated_relu_paper", 1e-7, JumpReLUSAE)]


@pytest.mark.parametrize(("name", "setting", "kind"), CASES)
def test_each_baseline_is_the_saelens_sae_that_computes_the_papers_formula(vectors, name, setting, kind, tmp_path):
    trained = train_paper_baseline(name, setting, vectors, 64, a_trainer(30), {"hook_name": "blocks.1.hook_resid_pre"})
    trained.save_model(tmp_path / "sae")
    sae = SAE.load_from_disk(tmp_path / "sae")
    assert isinstance(sae, kind)
    assert sae.cfg.metadata.hook_name == "blocks.1.hook_resid_pre"
    expected = []
    for x in vectors[:20].double():
        pre = x @ sae.W_enc.detach().double()
        keep = pre.argsort(descending=True)[:5] if name == "topk_paper" else range(64)
        floor = 0.5 if name == "gated_relu_paper" else 0.0
        out = sae.b_dec.detach().double().clone()
        for j in keep:
            if pre[j] > floor:
                out += pre[j] * sae.W_dec[j].detach().double()
        expected.append(out)
    torch.testing.assert_close(sae(vectors[:20]).double(), torch.stack(expected), rtol=1e-4, atol=1e-3)


def a_trainer(steps, learning_rate=1e-3):
    return bae_lens.TrainerConfig(
        steps=steps,
        batch_size=64,
        learning_rate=learning_rate,
        learning_rate_schedule=bae_lens.Schedule(),
        center=False,
        rescale=False,
    )


def test_the_loss_is_the_mean_squared_error_and_the_l1_norm_summed_over_minibatch_and_channels(vectors):
    x, alpha = vectors[:64].double(), 1e-3  # one minibatch holds them all
    start = fit_linear(vectors[:64], vectors[:64], 16, a_trainer(1, 1e-12), torch.relu, alpha)
    after = fit_linear(vectors[:64], vectors[:64], 16, a_trainer(1), torch.relu, alpha)
    before = [weight.double().requires_grad_() for weight in start]
    features = (x @ before[0]).relu()
    loss = (features @ before[1] + before[2] - x).pow(2).sum() / x.numel() + alpha * features.sum()
    for now, was, gradient in zip(after, before, torch.autograd.grad(loss, before), strict=True):
        clear = gradient.abs() > 1e-4  # Adam's first step is the learning rate against the gradient's sign
        assert clear.float().mean() > 0.3
        torch.testing.assert_close((now.double() - was.detach())[clear], -1e-3 * gradient[clear].sign(), rtol=0.05, atol=1e-6)


def test_more_training_and_less_alpha_lower_the_error(vectors):
    def fvu(steps, alpha):
        sae = train_paper_baseline("relu_paper", alpha, vectors, 64, a_trainer(steps, 5e-3))
        return ((sae(vectors) - vectors).pow(2).sum() / (vectors - vectors.mean(0)).pow(2).sum()).item()

    assert fvu(80, 1e-7) < 0.8 * fvu(15, 1e-7)
    assert fvu(80, 1e-7) < 0.8 * fvu(80, 1e-2)


def test_a_gated_relu_keeps_what_is_over_its_gate_as_it_is():
    assert gated_relu(torch.tensor([[-1.0, 0.5, 0.6, 3.0]])).tolist() == [[-0.0, 0.0, pytest.approx(0.6), 3.0]]


def test_training_twice_gives_the_same_weights(vectors):
    one, two = (train_paper_baseline("topk_paper", 5, vectors, 32, a_trainer(5)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("relu_papr", 1e-7, "did you mean 'relu_paper'"),
        ("topk_paper", 65, "k of topk_paper must be a whole number from 1 to d_sae = 64, got 65"),
        ("topk_paper", 2.5, "must be a whole number"),
        ("gated_relu_paper", -1.0, "alpha of gated_relu_paper must be at least 0, got -1"),
        ("relu_paper", float("nan"), "alpha of relu_paper must be at least 0, got nan"),
    ],
)
def test_what_cannot_be_trained_is_refused(vectors, name, setting, message):
    with pytest.raises(ValueError, match=message):
        train_paper_baseline(name, setting, vectors, 64, paper_trainer(1))


def test_centred_vectors_and_vectors_that_are_no_pairs_are_refused(vectors):
    with pytest.raises(ValueError, match="the paper trains on raw vectors"):
        train_paper_baseline("relu_paper", 0.0, vectors, 8, bae_lens.TrainerConfig(steps=1, batch_size=64))
    with pytest.raises(ValueError, match="are no pairs"):
        fit_linear(vectors, vectors[:-1], 8, a_trainer(1), torch.relu, 0.0)
    with pytest.raises(ValueError, match="fewer than one batch of 512"):
        train_paper_baseline("relu_paper", 0.0, vectors[:100], 8, paper_trainer(1))
