import json
import os

import pytest
import torch
from torch import nn

import bae_lens
from bae_lens.model.reference import load_reference
from bae_lens.training.recipes import reference_code


class PublishedStep(torch.autograd.Function):
    """The published binarisation as facts describe it: 1 where x > 0; backward g (1 - g) of the incoming gradient."""

    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, g):  # noqa: ARG004
        return g * (1 - g)


def published_loss(encoder, decoder, x, alpha_e, alpha_c, entropy_on):
    h = PublishedStep.apply(encoder(x))
    mse = ((decoder(h) - x) ** 2).mean()
    p = h.mean(0)
    entropy = -(p * torch.log2(p + 1e-10) + (1 - p) * torch.log2(1 - p + 1e-10)).sum()
    cov = torch.cov(h.T)
    off_diagonal = cov.abs().sum() - cov.diagonal().abs().sum()
    return mse + (alpha_e * entropy if entropy_on else 0.0) + alpha_c * off_diagonal


def test_training_by_the_reference_recipe_is_the_published_update_for_sixty_adam_steps_in_fp64():
    d, d_bits, steps = 6, 24, 60
    x = torch.randn(256, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    recipe = reference_code(d, 4, steps=steps)
    for name, value in {"dtype": "float64", "entropy_weight": 0.02, "covariance_weight": 0.01}.items():
        setattr(recipe.sae, name, value)  # weights large enough that each term matters
    recipe.trainer.batch_size = 32
    trained = bae_lens.train(x, recipe, progress=False)

    with torch.random.fork_rng():
        torch.manual_seed(recipe.trainer.seed)
        start = bae_lens.TrainingBAE(recipe.sae)
    encoder, decoder = nn.Linear(d, d_bits).double(), nn.Linear(d_bits, d).double()
    with torch.no_grad():
        for own, theirs in ((encoder.weight, start.W_enc.T), (encoder.bias, start.b_enc), (decoder.weight, start.W_dec.T)):
            own.copy_(theirs)
        decoder.bias.copy_(start.b_dec)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=5e-4, betas=(0.9, 0.999))
    generator = torch.Generator().manual_seed(recipe.trainer.seed)
    order, step = [], 0
    while step < steps:
        if not order:
            order = list(torch.randperm(256, generator=generator).split(32))
        loss = published_loss(encoder, decoder, x[order.pop(0)], 0.02, 0.01, entropy_on=step >= 15)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    bae = trained.bae
    for found, expected in (
        (bae.W_enc, encoder.weight.T),
        (bae.b_enc, encoder.bias),
        (bae.W_dec, decoder.weight.T),
        (bae.b_dec, decoder.bias),
    ):
        assert (found - expected).abs().max().item() <= 1e-12
    assert (encoder.weight.T - start.W_enc).abs().max() > 1e-2


def published(c=1, d=6, d_sae=8):
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": nn.Linear(d, d_sae * c), "decoder": nn.Linear(d_sae, d)})


@pytest.mark.parametrize("c", [1, 2])
def test_a_published_checkpoint_computes_what_the_published_model_computes(tmp_path, c):
    model = published(c)
    torch.save(model.state_dict(), tmp_path / "bae.pt")
    bae = load_reference(tmp_path / "bae.pt", bits_per_feature=c, metadata={"hook_name": "blocks.3.hook_resid_pre"})
    x = torch.randn(20, 6)
    h = (model["encoder"](x) > 0).float().unflatten(-1, (-1, c))
    features = sum(h[..., j] * 2**j for j in range(c)) / (2**c - 1)
    torch.testing.assert_close(bae(x), model["decoder"](features))
    assert bae.cfg.metadata.hook_name == "blocks.3.hook_resid_pre"
    assert bae.cfg.surrogate == "reference_code"


def test_parameters_come_by_json_too(tmp_path):
    torch.save(published(2).state_dict(), tmp_path / "bae.pt")
    (tmp_path / "p.json").write_text(json.dumps({"bits_per_feature": 2, "metadata": {"hook_name": "x"}}))
    bae = load_reference(tmp_path / "bae.pt", parameters=tmp_path / "p.json")
    assert (bae.cfg.bits_per_feature, bae.cfg.d_sae, bae.cfg.metadata.hook_name) == (2, 8, "x")
    for text in ("{}", "[1]", "not json", '{"bits_per_feature": "two"}'):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(ValueError, match=r"p\.json.*bits_per_feature"):
            load_reference(tmp_path / "bae.pt", parameters=tmp_path / "p.json")


class Malicious:
    def __reduce__(self):
        return os.mkdir, (self.target,)

    def __init__(self, target):
        self.target = target


def test_a_malicious_pickle_named_like_a_checkpoint_is_refused_and_not_run(tmp_path):
    target = tmp_path / "owned"
    torch.save({"encoder.weight": Malicious(str(target))}, tmp_path / "bae.pt")
    with pytest.raises(ValueError, match="no plain state dict"):
        load_reference(tmp_path / "bae.pt")
    import pickle

    (tmp_path / "old.pt").write_bytes(pickle.dumps(Malicious(str(target))))
    with pytest.raises(ValueError, match="no plain state dict"):
        load_reference(tmp_path / "old.pt")
    assert not target.exists()


@pytest.mark.parametrize(
    ("change", "c", "message"),
    [
        (lambda s: s.pop("decoder.bias"), 1, r"missing \['decoder.bias'\]"),
        (lambda s: s.update(extra=torch.zeros(1)), 1, r"unknown \['extra'\]"),
        (lambda s: None, 3, "3 bits a feature do not divide the 8 bits"),
        (lambda s: None, 2, r"decoder.weight has shape \(6, 8\) where \(6, 4\)"),
        (lambda s: s.update({"encoder.bias": torch.zeros(3)}), 1, "encoder.bias has shape"),
        (lambda s: s.update({"encoder.bias": 3}), 1, "dictionary of tensors"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, change, c, message):
    state = dict(published().state_dict())
    change(state)
    torch.save(state, tmp_path / "bae.pt")
    with pytest.raises(ValueError, match=message):
        load_reference(tmp_path / "bae.pt", bits_per_feature=c)


def test_files_that_are_missing_or_cut_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_reference(tmp_path / "bae.pt")
    torch.save(published().state_dict(), tmp_path / "bae.pt")
    data = (tmp_path / "bae.pt").read_bytes()
    (tmp_path / "bae.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="no plain state dict"):
        load_reference(tmp_path / "bae.pt")
