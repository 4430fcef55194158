import pytest

from bae_lens.training.recipes import synthetic


@pytest.mark.parametrize(("d_in", "expansion", "weight"), [(64, 4, 2e-2), (512, 2, 2e-2), (2048, 2, 5e-3)])
def test_the_synthetic_recipe_weighs_entropy_less_the_more_bits_there_are_beyond_1024(d_in, expansion, weight):
    sae = synthetic(d_in, expansion).sae
    assert sae.entropy_weight == pytest.approx(weight)
    assert sae.covariance_weight == pytest.approx(weight / 10)
    assert synthetic(d_in, expansion, entropy_weight=0.3).sae.entropy_weight == 0.3
