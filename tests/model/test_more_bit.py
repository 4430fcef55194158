import pytest
import torch

from bae_lens.model.more_bit import fold_bits, unfold_features


@pytest.mark.parametrize("c", range(1, 9))
def test_features_are_consecutive_bits_least_significant_first_over_two_to_the_c_minus_one(c):
    bits = torch.randint(2, (7, 5 * c), generator=torch.Generator().manual_seed(c)).float()
    features = fold_bits(bits, c)
    for row in range(7):
        for i in range(5):
            number = sum(2**j * int(bits[row, i * c + j]) for j in range(c))
            assert features[row, i].item() == pytest.approx(number / (2**c - 1), rel=1e-6)


@pytest.mark.parametrize("code", ["powers", "nested"])
def test_features_in_float64_are_not_rounded_to_fp32(code):
    bits = torch.tensor([1, 0, 0], dtype=torch.float64)
    assert fold_bits(bits, 3, code).item() == (1 / 3 if code == "nested" else 1 / 7)


@pytest.mark.parametrize("c", range(1, 9))
def test_unfolding_gives_the_bits_back(c):
    bits = torch.randint(2, (50, 6 * c), generator=torch.Generator().manual_seed(c)).float()
    assert torch.equal(unfold_features(fold_bits(bits, c), c), bits)
