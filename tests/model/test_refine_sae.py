import pytest
import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    Transcoder,
    TranscoderConfig,
)

from bae_lens.model.level_codes import code_bits, code_costs, level_counts, quantize
from bae_lens.model.refine import refine
from bae_lens.model.refine_sae import fit_costs, level_rows, refine_sae

D_IN, D_SAE, TOP = 16, 40, 6


@pytest.fixture
def x():
    return torch.randn(80, D_IN, generator=torch.Generator().manual_seed(3))


def make(sae_class, config_class, **fields):
    sae = sae_class(config_class(d_in=D_IN, d_sae=D_SAE, **fields))
    generator = torch.Generator().manual_seed(5)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    if hasattr(sae, "threshold"):
        sae.threshold.data.abs_()
    return sae


SAES = {
    "topk": lambda: make(TopKSAE, TopKSAEConfig, k=5),
    "topk, activations rescaled": lambda: make(TopKSAE, TopKSAEConfig, k=5, rescale_acts_by_decoder_norm=True),
    "standard": lambda: make(StandardSAE, StandardSAEConfig),
    "jumprelu": lambda: make(JumpReLUSAE, JumpReLUSAEConfig, apply_b_dec_to_input=False),
    "batchtopk, training": lambda: make(BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, k=5),
}


def objective(sae, x, levels, step, costs, weight):
    """By what the SAE itself decodes."""
    with torch.no_grad():
        error = (x - sae.decode(levels * step)).double().pow(2).sum(1)
    return error + weight * code_bits(levels, costs)


@pytest.mark.parametrize("step", [0.7, torch.linspace(0.3, 1.2, D_SAE)], ids=["one step", "a step each"])
@pytest.mark.parametrize("name", SAES)
def test_an_saes_refined_codes_are_better_in_error_and_bits_by_what_it_decodes(name, step, x):
    sae, weight = SAES[name](), 0.2
    start = quantize(sae.encode(x), step, TOP)
    costs = code_costs(level_counts(start, TOP))
    found = refine_sae(sae, x, step, costs, weight)
    before, after = (objective(sae, x, levels, step, costs, weight) for levels in (start, found.levels))
    assert torch.equal(after < before, found.moves > 0)
    assert after.mean() < 0.9 * before.mean()
    rows = level_rows(sae, step)
    by_hand = refine(start, x, rows, sae.b_dec, costs, weight, gram=rows @ rows.T)
    assert torch.equal(found.levels, by_hand.levels)
    assert torch.equal(found.levels, refine_sae(sae, x, step, costs, weight, gram=rows @ rows.T).levels)


@pytest.mark.parametrize("c", [1, 2])
def test_a_baes_bits_are_levels_and_refine_like_any_other(make_bae, vectors, c):
    bae = make_bae(c)
    bae.fold_and_get_W_dec_norm()
    step = bae.act_scale / (2**c - 1)
    bits = bae.bits(vectors).unflatten(-1, (-1, c))
    levels = quantize(bae.encode(vectors), step, 2**c - 1)
    assert torch.equal(levels.float(), (bits * 2.0 ** torch.arange(c)).sum(-1))
    costs, weight = code_costs(level_counts(levels, 2**c - 1)), 0.5
    found = refine_sae(bae, vectors, step, costs, weight)
    before, after = (objective(bae, vectors, codes, step, costs, weight) for codes in (levels, found.levels))
    assert torch.equal(after < before, found.moves > 0)
    assert found.moves.sum() > 0


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_costs_are_counted_on_codes_that_were_refined_under_the_costs_before(rounds, x):
    sae = SAES["topk"]()
    costs = code_costs(level_counts(quantize(sae.encode(x), 0.7, TOP), TOP))
    for _ in range(rounds):
        costs = code_costs(level_counts(refine_sae(sae, x, 0.7, costs, 0.2).levels, TOP))
    assert torch.equal(fit_costs(sae, x, 0.7, TOP, 0.2, rounds=rounds), costs)


def test_training_vectors_are_taken_batch_by_batch():
    sae = SAES["topk"]()
    x = torch.randn(4100, D_IN, generator=torch.Generator().manual_seed(0))
    costs = code_costs(level_counts(quantize(sae.encode(x), 0.7, TOP), TOP))
    torch.testing.assert_close(fit_costs(sae, x, 0.7, TOP, 0.2, rounds=0), costs)


@pytest.mark.parametrize(
    "make_sae",
    [
        lambda: make(Transcoder, TranscoderConfig, d_out=D_IN, apply_b_dec_to_input=False),
        lambda: make(StandardSAE, StandardSAEConfig, normalize_activations="layer_norm"),
        lambda: make(StandardSAE, StandardSAEConfig, normalize_activations="constant_norm_rescale"),
    ],
    ids=["transcoder", "layer_norm", "constant_norm_rescale"],
)
def test_what_does_not_reconstruct_its_input_linearly_is_refused(make_sae, x):
    with pytest.raises(ValueError, match="does not reconstruct its input as b_dec"):
        refine_sae(make_sae(), x, 0.7, torch.ones(D_SAE, 3), 0.1)


def test_a_decoder_that_is_more_than_its_rows_is_found_out(x):
    sae = SAES["standard"]()
    sae.hook_sae_recons.add_hook(lambda tensor, hook: tensor.relu())
    with pytest.raises(ValueError, match="this StandardSAE does not"):
        level_rows(sae, 0.7)


def test_steps_and_vectors_that_do_not_fit_are_refused(x):
    sae = SAES["topk"]()
    with pytest.raises(ValueError, match="steps must be positive"):
        level_rows(sae, -1.0)
    with pytest.raises(ValueError, match="width 15 given to something of width d_in = 16"):
        refine_sae(sae, x[:, :15], 0.7, torch.ones(D_SAE, 3), 0.1)
    with pytest.raises(ValueError, match="width 15 given to something of width d_in = 16"):
        fit_costs(sae, x[:, :15], 0.7, 2, 0.1)
