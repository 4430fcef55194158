"""What a run is about: for each activated feature its samples as text, split into those to name it by and those to test on."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sae_lens import SAE

from bae_lens.activations.harvest import Activations
from bae_lens.activations.text import Windows
from bae_lens.checks import check_activations
from bae_lens.comsem.collect import Collection, check_options, collect, collect_random
from bae_lens.comsem.readings import Readings, read_sentences
from bae_lens.comsem.samples import Sample, TokenText, make_sample


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Parameters of Algorithm 1, and of the samples beside it."""

    k: int = 10
    """Features of a token that count as activated on it."""
    interpret: int = 5
    """n_I: samples that a feature is named by."""
    test: int = 8
    """n_T: samples that are judged at most."""
    least: int | None = None
    """Samples that a feature needs to count as activated; n_I + 1 if not given (Table 1's caption: more than 8)."""
    magnitude: str = "auto"
    prior: str = "evaluation"
    keep: str = "first"
    keep_usual: bool = False
    """As `collect` takes them."""
    around: int = 32
    """Tokens of the sentence shown on either side."""
    background: int = 2000
    """Tokens by lot, for rules."""
    control: int = 32
    """Features of the random control."""
    sentences: bool = False
    """Read magnitudes on whole sentences: detection, fuzzing and simulation need them."""
    features: tuple[int, ...] | None = None
    """Only these."""
    seed: int = 0


class FeatureSamples(NamedTuple):
    """A feature with its samples."""

    feature: int
    seen: int
    """In the top-k of so many tokens."""
    interpret: tuple[Sample, ...]
    test: tuple[Sample, ...]
    inactive: tuple[Sample, ...] = ()
    """Sentences where the feature is nowhere in the top-k, a token by lot marked."""
    wrong: tuple[Sample, ...] = ()
    """Sentences of `test` with a token marked where the feature is not in the top-k."""


class Study(NamedTuple):
    """What `interpret` works on."""

    features: list[FeatureSamples]
    """The activated ones, in order."""
    control: list[FeatureSamples]
    """Random tokens in the place of a feature's."""
    background: list[Sample]
    counts: dict[str, int]
    """features, tokens, sentences, activated, and entries of top-k at their usual code."""
    settings: dict[str, Any]
    """Options, what the SAE is, and a hash of all samples: what a journal must agree with."""


def prepare(
    sae: SAE[Any],
    activations: Activations,
    windows: Windows,
    tokenizer: Any,
    options: StudyOptions | None = None,
    *,
    progress: bool = True,
) -> Study:
    """Collects the samples of every feature of an SAE (step 1 of Algorithm 1) and writes them out as text.

    Args:
        sae: A BAE, or any SAELens SAE.
        activations: Harvested from `windows` at its hook point.

    Raises:
        ValueError: If an option is not possible, the activations do not fit, or no feature is activated.
    """
    options = options or StudyOptions()
    _check(options, sae.cfg.d_sae)
    check_activations(activations.vectors, sae.cfg.d_in)
    chosen = {"k": options.k, "samples": options.interpret + options.test, "keep": options.keep, "seed": options.seed}
    found = collect(
        sae,
        activations.vectors,
        **chosen,
        magnitude=options.magnitude,
        prior=options.prior,
        keep_usual=options.keep_usual,
        progress=progress,
    )
    text = _Text(TokenText(tokenizer), windows, activations, options.around)
    least = options.interpret + 1 if options.least is None else options.least
    wanted = range(sae.cfg.d_sae) if options.features is None else options.features
    activated = [feature for feature in wanted if found.seen[feature] >= least]
    if not activated:
        raise ValueError(
            f"none of {len(wanted)} features is in the top-{options.k} of {least} tokens: give more text, or a larger k"
        )
    features = [text.feature(found, feature, options) for feature in activated]
    if options.sentences:
        features = _with_sentences(features, sae, found, text, options, np.random.default_rng((options.seed, 2)))
    control = _control(found.tokens, text, options)
    lot = np.random.default_rng((options.seed, 3))
    background = [text.sample(int(p), 0.0) for p in lot.integers(found.tokens, size=options.background)]
    counts = {
        "features": sae.cfg.d_sae,
        "tokens": found.tokens,
        "sentences": int(windows.document.max()) + 1,
        "activated": len(activated),
        "usual": found.usual,
    }
    return Study(features, control, background, counts, _settings(sae, options, [*features, *control]))


class _Text(NamedTuple):
    """Makes samples of places in the activations."""

    tokens: TokenText
    windows: Windows
    activations: Activations
    around: int

    def sample(self, place: int, magnitude: float) -> Sample:
        window, position = int(self.activations.window[place]), int(self.activations.position[place])
        return make_sample(self.tokens, self.windows, window, position, magnitude, self.around)

    def feature(self, found: Collection, feature: int, options: StudyOptions) -> FeatureSamples:
        samples = tuple(self.sample(place, magnitude) for place, magnitude in found.of(feature))
        return FeatureSamples(feature, int(found.seen[feature]), samples[: options.interpret], samples[options.interpret :])


def _control(tokens: int, text: _Text, options: StudyOptions) -> list[FeatureSamples]:
    """Features of tokens by lot; each has all of its samples where there are tokens enough."""
    if not options.control:
        return []
    samples = options.interpret + options.test
    found = collect_random(tokens, options.control, k=1, samples=samples, keep="reservoir", seed=options.seed)
    every = [text.feature(found, feature, options) for feature in range(options.control)]
    return [feature for feature in every if feature.test]


def _with_sentences(
    features: list[FeatureSamples],
    sae: SAE[Any],
    found: Collection,
    text: _Text,
    options: StudyOptions,
    lot: np.random.Generator,
) -> list[FeatureSamples]:
    """Features with magnitudes on their test sentences, sentences without them, and tokens that are not theirs."""
    count = len(text.windows.lengths)
    harvested = np.unique(text.activations.window.numpy())
    pool = np.sort(lot.choice(harvested, size=min(256, len(harvested)), replace=False))
    if found.scale is None:
        raise ValueError('detection, fuzzing and simulation have no meaning for magnitude "random"')
    pairs = np.array([f.feature * count + s.window for f in features for s in f.test], np.int64)
    readings = read_sentences(sae, found.scale, text.activations, pairs, pool, count, options.k, options.keep_usual)
    return [_one_with_sentences(feature, readings, pool, text, lot) for feature in features]


def _one_with_sentences(
    feature: FeatureSamples, readings: Readings, pool: np.ndarray, text: _Text, lot: np.random.Generator
) -> FeatureSamples:
    test = tuple(readings.on(feature.feature, sample) for sample in feature.test)
    wrong = []
    for sample in test:
        free = [i for i, on in enumerate(sample.activations) if on == 0 and sample.tokens[i].strip()]
        if free:
            wrong.append(sample.at(free[int(lot.integers(len(free)))]))
    inactive: list[Sample] = []
    for window in lot.permutation(pool).tolist():
        if len(inactive) == len(test):
            break
        if not readings.has(feature.feature, window):
            position = int(lot.integers(1, int(text.windows.lengths[window])))
            shown = make_sample(text.tokens, text.windows, window, position, 0.0, text.around)
            inactive.append(shown._replace(activations=(0.0,) * len(shown.tokens)))
    return feature._replace(test=test, wrong=tuple(wrong), inactive=tuple(inactive))


def _settings(sae: SAE[Any], options: StudyOptions, features: list[FeatureSamples]) -> dict[str, Any]:
    told = hashlib.sha256()
    for feature in features:
        told.update(json.dumps(feature, ensure_ascii=True).encode())
    chosen = {name: value for name, value in dataclasses.asdict(options).items() if name != "background"}
    hook = sae.cfg.metadata.hook_name
    kind = {"architecture": sae.cfg.architecture(), "d_in": sae.cfg.d_in, "d_sae": sae.cfg.d_sae, "hook_name": hook}
    return {"sae": kind, "options": chosen, "samples": told.hexdigest()[:16]}


def _check(options: StudyOptions, features: int) -> None:
    check_options(options.k, options.interpret + options.test, options.keep)
    for name in ("interpret", "test", "around", "background"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
    if options.control < 0:
        raise ValueError(f"control must be at least 0, got {options.control}")
    if options.least is not None and options.least <= options.interpret:
        raise ValueError(f"least = {options.least} leaves nothing to test on beside {options.interpret} samples to name by")
    if options.features is not None:
        beyond = [f for f in options.features if not 0 <= f < features]
        if beyond:
            raise ValueError(f"no feature {beyond[0]}: this SAE has {features}, 0 to {features - 1}")
        if len(set(options.features)) < len(options.features):
            raise ValueError("a feature is named twice")
