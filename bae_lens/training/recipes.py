"""Recipes: functions that return whole configurations, chosen by a rule.

`recommended` is for real activations, `synthetic` for vectors that are known to be sums of directions that are each there about
half the time (section 4.1); `paper` follows the text, `reference_code` the published code.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

from bae_lens.checks import check_known
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.training.config import Recipe, TrainerConfig
from bae_lens.training.schedules import Schedule


class PaperUse(NamedTuple):
    """What the paper sets for one of its experiments."""

    entropy_weight: float
    covariance_weight: float
    epochs: int
    delay_epochs: int


PAPER_USES: dict[str, PaperUse] = {
    "default": PaperUse(1e-7, 1e-7, 2000, 500),  # section 3
    "synthetic": PaperUse(5e-7, 1e-6, 2000, 500),  # A.1
    "traces": PaperUse(1e-7, 1e-7, 2000, 500),  # A.2, A.3
    "features": PaperUse(1e-7, 1e-7, 200, 50),  # A.4
    "compression": PaperUse(1e-9, 1e-9, 200, 50),  # Table 3's second half; A.5 says no epochs, its BAEs are A.4's
}


def recommended(
    d_in: int,
    expansion: float = 4,
    *,
    bits_per_feature: int = 1,
    code: str = "nested",
    entropy_weight: float = 0.1,
    steps: int = 3000,
    batch_size: int = 512,
    seed: int = 0,
    device: str = "cpu",
) -> Recipe:
    """The best that we measured on real activations for one feed-forward pass, and the default.

    Weights are in units of L_r summed over d_in after rescaling (mean |x - mean|^2 = d_in).

    Args:
        bits_per_feature: 4 nested bits need about a third fewer bits a token at equal FVU than one (docs/codes_benchmark.md).
        code: How several bits make a feature: "nested", or "powers" of two as in section 6.

    Examples:
        >>> recipe = recommended(d_in=64, expansion=4, steps=300)
        >>> recipe.sae.d_sae, recipe.sae.entropy_weight, recipe.trainer.batch_size
        (256, 0.1, 512)
    """
    is_nested = code == "nested" and bits_per_feature > 1
    sae = TrainingBAEConfig(
        d_in=d_in,
        d_sae=_width(d_in, expansion),
        bits_per_feature=bits_per_feature,
        code=code if bits_per_feature > 1 else "powers",
        surrogate="clip",
        surrogate_width=0.3,
        init="data",
        entropy_weight=entropy_weight,
        covariance_weight=0.0 if is_nested else 2e-3,  # between nested features it cost 20 % more bits at equal FVU
    )
    return Recipe(sae, _trainer(8e-3 if is_nested else 5e-3, steps, batch_size, seed, device))


def rate_distortion(
    d_in: int,
    expansion: float = 4,
    *,
    levels: int = 12,
    weight: float = 0.2,
    k: int = 3,
    steps: int = 3000,
    batch_size: int = 512,
    seed: int = 0,
    device: str = "cpu",
) -> Recipe:
    """Codes optimised in rate and distortion: far fewer bits at equal FVU than any other recipe, for a slower encoding.

    The code of a vector is refined after its encoder (see `bae_lens.model.refine`), in training and in use.

    Args:
        levels: Nested levels a feature; 1 for a pure binary code.
        weight: Squared error per bit, where the mean of |x - mean|^2 is d_in: larger is sparser.
        k: Features that are on in the warm phase, rather fewer than shall be on in the end: refining adds what is missing.
    """
    sae = TrainingBAEConfig(
        d_in=d_in,
        d_sae=_width(d_in, expansion),
        bits_per_feature=levels,
        code="nested",
        objective="rate_distortion",
        refine_weight=weight,
        refine_from=k,
        refine_moves=20,
        refine_exchanges=1,
        surrogate="clip",
        surrogate_width=0.5,
        init="data",
    )
    refined = Schedule(shape="wsd", warm_up=_warm_up(100, steps // 4), decay=0.4)
    return Recipe(sae, _trainer(6e-3, steps, batch_size, seed, device, refined_schedule=refined))


def synthetic(
    d_in: int,
    expansion: float = 4,
    *,
    bits_per_feature: int = 1,
    entropy_weight: float | None = None,
    steps: int = 3000,
    batch_size: int = 512,
    seed: int = 0,
    device: str = "cpu",
) -> Recipe:
    """For a dense binary truth, as section 4.1's sums of directions that are each there half the time.

    When to use it: where the vectors are known to be such sums, of directions of about unit length. Its bits start on half the
    time; those of `recommended` start seldom on, which is right for real activations and wrong here. Weights are in units of
    L_r summed over d_in, of the vectors as they are: neither centred nor rescaled. The covariance term decays with the learning
    rate: the covariances of a minibatch are never 0. Where a feature is one bit, the code is revised (objective/revise.py).

    The entropy weight is 0.02 up to 1,024 bits and falls as 1 / d' beyond: all bits begin with an entropy of 1, whatever the
    rank, and at d' = 4096 a weight of 0.02 silences them before they have learnt anything (docs/synthetic_benchmark.md).
    """
    if isinstance(bits_per_feature, bool) or not isinstance(bits_per_feature, int) or bits_per_feature < 1:
        raise ValueError(f"bits_per_feature must be a whole number of at least 1, got {bits_per_feature!r}")
    if entropy_weight is None:
        entropy_weight = 2e-2 * min(1.0, 1024 / (_width(d_in, expansion) * bits_per_feature))
    sae = TrainingBAEConfig(
        d_in=d_in,
        d_sae=_width(d_in, expansion),
        bits_per_feature=bits_per_feature,
        surrogate="clip",
        surrogate_width=0.3,
        init="linear",
        entropy_weight=entropy_weight,
        covariance_weight=entropy_weight / 10,
    )
    trainer = _trainer(
        4e-3,
        steps,
        batch_size,
        seed,
        device,
        covariance_schedule=Schedule(shape="wsd", decay=0.4),
        revise_at=(0.4, 0.55, 0.7) if bits_per_feature == 1 else (),
        center=False,
        rescale=False,
    )
    return Recipe(sae, trainer)


def paper(
    d_in: int,
    expansion: float = 4,
    *,
    use: str = "default",
    bits_per_feature: int = 1,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Recipe:
    """The text of arXiv 2509.20997: Eq. 4 as printed, Eq. 6, no encoder bias, a constant rate of 5e-4.

    Its weights belong to L_r averaged over dimensions (the magnitudes of its footnote 1 and Table 1), so that is L_r's unit
    here. Eq. 4 as printed counts half a bit for a fair bit; reported entropies are Bernoulli all the same.

    Args:
        use: One of the paper's experiments: "default", "synthetic" (A.1), "traces" (A.2, A.3), "features" (A.4),
            "compression" (A.5).
        steps: Instead of the paper's epochs.
    """
    return _published(d_in, expansion, use, bits_per_feature, steps, seed, device, follows_code=False)


def reference_code(
    d_in: int,
    expansion: float = 4,
    *,
    use: str = "default",
    bits_per_feature: int = 1,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Recipe:
    """The published code (github.com/hc495/Binary_Autoencoder): its step (x > 0), its backward, its whole Bernoulli entropy.

    Arguments as in `paper`.
    """
    return _published(d_in, expansion, use, bits_per_feature, steps, seed, device, follows_code=True)


def _published(
    d_in: int,
    expansion: float,
    use: str,
    bits_per_feature: int,
    steps: int | None,
    seed: int,
    device: str,
    follows_code: bool,
) -> Recipe:
    check_known("use of the paper", use, PAPER_USES)
    set_up = PAPER_USES[use]
    sae = TrainingBAEConfig(
        d_in=d_in,
        d_sae=_width(d_in, expansion),
        bits_per_feature=bits_per_feature,
        surrogate="reference_code" if follows_code else "sigmoid",
        encoder_bias=follows_code,
        reconstruction_loss="mean",
        entropy_form="bernoulli" if follows_code else "eq4",
        entropy_weight=set_up.entropy_weight,
        covariance_weight=set_up.covariance_weight,
        init="linear",
    )
    trainer = TrainerConfig(
        steps=steps,
        epochs=None if steps else set_up.epochs,
        learning_rate=5e-4,
        learning_rate_schedule=Schedule(),
        entropy_schedule=Schedule(delay=set_up.delay_epochs / set_up.epochs),
        center=False,
        rescale=False,
        fold_polarity=False,
        seed=seed,
        device=device,
    )
    return Recipe(sae, trainer)


def _trainer(learning_rate: float, steps: int, batch_size: int, seed: int, device: str, **fields: Any) -> TrainerConfig:
    """What the recipes of our own share: warm-up-stable-decay, the warm-up at most a fifth of the run."""
    return TrainerConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        learning_rate_schedule=Schedule(shape="wsd", warm_up=_warm_up(200, steps), decay=0.3),
        seed=seed,
        device=device,
        **fields,
    )


def _warm_up(most: int, steps: int) -> int:
    return max(0, min(most, steps // 5))


def _width(d_in: int, expansion: float) -> int:
    if not isinstance(expansion, Real) or not isinstance(d_in, Real):  # bytes times a number would be many bytes
        raise TypeError(f"expansion and d_in must be numbers, got {expansion!r} and {d_in!r}")
    width = float(expansion) * d_in
    if not (math.isfinite(width) and round(width) >= 1):
        raise ValueError(f"an expansion of {expansion} leaves no feature at d_in = {d_in}, or no end of them")
    return round(width)


RECIPES: dict[str, Callable[..., Recipe]] = {
    "recommended": recommended,
    "rate_distortion": rate_distortion,
    "synthetic": synthetic,
    "paper": paper,
    "reference_code": reference_code,
}

PUBLISHED = ("paper", "reference_code")
"""Those that take a `use`, one of the paper's experiments."""


def get_recipe(name: str) -> Callable[..., Recipe]:
    """A recipe by name.

    Raises:
        ValueError: If there is none of that name (near names are said).
    """
    check_known("recipe", name, RECIPES)
    return RECIPES[name]
