"""A small study whose samples are made of words, without any model."""

import random

from bae_lens.comsem.results import feature_dict
from bae_lens.comsem.samples import Sample
from bae_lens.comsem.study import FeatureSamples, Study

WORDS = [
    "red",
    "green",
    "blue",
    "dog",
    "cat",
    "horse",
    "run",
    "walk",
    "jump",
    "one",
    "two",
    "three",
    "seven",
    "quickly",
    "slowly",
    "house",
    "river",
    "stone",
    "apple",
    "of",
    "and",
    "the",
]


def make_sample(words, index, activations=()):
    tokens = tuple(word if place == 0 else f" {word}" for place, word in enumerate(words))
    return Sample(tokens, index, index + 1, 0, 0.0, activations=tuple(activations))


def make_study(features=12, interpret=5, test=8, seed=0, control=2, sentences=False):
    """Features of one word each (and noise): every sample's token is that word two times in three."""
    lot = random.Random(seed)

    def sample(word):
        words = lot.choices(WORDS, k=7)
        index = lot.randrange(7)
        words[index] = word if lot.random() < 0.67 else words[index]
        return make_sample(words, index, [float(i == index) for i in range(7)])

    def feature(number):
        word = WORDS[number % len(WORDS)]
        test_samples = tuple(sample(word) for _ in range(test))
        extra = {}
        if sentences:
            off = tuple(make_sample([w for w in lot.choices(WORDS, k=7)], 0, [0.0] * 7) for _ in range(test))
            extra = {"inactive": off, "wrong": tuple(s.at((s.place + 1) % 7) for s in test_samples)}
        return FeatureSamples(number, 100, tuple(sample(word) for _ in range(interpret)), test_samples, **extra)

    every = [feature(number) for number in range(features + control)]
    background = [make_sample(lot.choices(WORDS, k=7), lot.randrange(7)) for _ in range(500)]
    settings = {"sae": {"hook_name": "blocks.1.hook_resid_pre", "d_sae": 64}, "options": {"seed": seed}, "samples": f"{seed}"}
    counts = {"features": 64, "tokens": 1000, "sentences": 100, "activated": features, "usual": 0}
    return Study(every[:features], every[features:], background, counts, settings)


def outcome(results, study):
    """All that a run found, but for what it cost and how often it tried."""
    features = [feature_dict(r, s) for r, s in zip(results.features, study.features, strict=True)]
    control = [feature_dict(r, s) for r, s in zip(results.control, study.control, strict=True)]
    return features, control, results.summary
