import json

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from transformer_lens import HookedTransformer

import bae_lens
from bae_lens.activations.harvest import Activations
from bae_lens.comsem import FunctionBackend, RunOptions, StudyOptions, interpret, prepare, sentence_windows
from bae_lens.comsem.ledger import most_prompt_tokens
from bae_lens.comsem.prompts import interpret_request, judge_request
from bae_lens.comsem.samples import TokenText, make_sample
from bae_lens.comsem.sentences import split_sentences

HOOK = "blocks.1.hook_resid_pre"
TEXT = [
    "Return the number of items in the list. The module raises an error if the file is not open! Is it 3.5 or more? "
    'He said "no." Then she left the room.',
    "A second document, with a line\n\nand a paragraph of its own that is long enough",
] * 8


@pytest.fixture(scope="module")
def tokenizer(models):
    return models(HookedTransformer).tokenizer


@pytest.fixture(scope="module")
def read(models, tokenizer):
    windows = sentence_windows(tokenizer, TEXT, 64)
    return windows, bae_lens.harvest(models(HookedTransformer), windows, HOOK, progress=False)


def test_documents_are_split_where_sentences_end():
    assert list(split_sentences(TEXT[:2])) == [
        "Return the number of items in the list.",
        "The module raises an error if the file is not open!",
        "Is it 3.5 or more?",
        'He said "no."',
        "Then she left the room.",
        "A second document, with a line",
        "and a paragraph of its own that is long enough",
    ]


def test_a_limit_of_sentences_or_tokens_is_kept(tokenizer):
    assert len(sentence_windows(tokenizer, TEXT, 8, sentences=3).document.unique()) == 3
    windows = sentence_windows(tokenizer, TEXT, 32, tokens=50)
    assert 50 <= windows.n_tokens < 50 + 32
    with pytest.raises(ValueError, match="sentences must be at least 1"):
        sentence_windows(tokenizer, TEXT, 32, sentences=0)


@pytest.mark.parametrize(
    "text", ["A plain sentence, isn't it?", 'Caf\u00e9 \u05e9\u05dc\u05d5\u05dd \U0001f600 <b>&amp;</b> "quoted"\ttab']
)
def test_the_texts_of_tokens_join_to_the_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = TokenText(tokenizer).of(ids)
    assert len(texts) == len(ids)
    assert "".join(texts).strip() == text
    assert "\ufffd" not in "".join(texts)


def test_a_sentence_of_ten_thousand_tokens_is_read_in_windows_and_shown_in_part(models, tokenizer, make_bae):
    text = " ".join(f"word{i} and" for i in range(4000))
    assert len(tokenizer(text)["input_ids"]) > 10_000
    windows = sentence_windows(tokenizer, [text], 256)
    assert windows.tokens.shape[1] == 256
    assert set(windows.document.tolist()) == {0}
    activations = bae_lens.harvest(models(HookedTransformer), windows, HOOK, max_tokens=2000, progress=False)
    study = prepare(make_bae(), activations, windows, tokenizer, progress=False)
    for feature in study.features:
        for sample in (*feature.interpret, *feature.test):
            assert len(sample.tokens) <= 65
        assert most_prompt_tokens(interpret_request(feature.interpret)) < 8000
    sample = make_sample(TokenText(tokenizer), windows, 1, 100, 0.0, 32)
    assert '"... ' in judge_request("x", [sample]).messages[1]["content"]
    assert (sample.place, sample.position, sample.cut_before, sample.cut_after) == (32, 100, True, True)


def test_samples_are_split_into_those_to_name_by_and_those_to_test_on(read, tokenizer, make_bae):
    windows, activations = read
    bae = make_bae()
    study = prepare(bae, activations, windows, tokenizer, StudyOptions(interpret=3, test=4), progress=False)
    bits = bae.bits(activations.vectors).detach()
    usual = (bits.mean(0) > 0.5).float()
    texts = TokenText(tokenizer)
    assert study.features
    for feature in study.features:
        assert feature.seen >= 4
        assert len(feature.interpret) == 3
        assert 1 <= len(feature.test) <= 4
        for sample in (*feature.interpret, *feature.test):
            here = (activations.window == sample.window) & (activations.position == sample.position)
            assert bits[here, feature.feature] != usual[feature.feature]
            assert sample.token == texts.of([int(windows.tokens[sample.window, sample.position])])[0]
    assert study.counts["activated"] == len(study.features)
    assert len(study.background) == 2000
    json.dumps(study.settings)


def test_sentences_are_read_for_the_other_scores(read, tokenizer, make_bae):
    windows, activations = read
    bae = make_bae()
    options = StudyOptions(sentences=True, k=5)
    study = prepare(bae, activations, windows, tokenizer, options, progress=False)
    bits = bae.bits(activations.vectors).detach()
    deviation = (bits - bits.mean(0)).abs()
    top = deviation.argsort(dim=1, descending=True, stable=True)[:, :5]
    usual = (bits.mean(0) > 0.5).float()
    for feature in study.features:
        on = (top == feature.feature).any(1) & (bits[:, feature.feature] != usual[feature.feature])
        for sample in feature.test:
            here = (activations.window == sample.window).nonzero().flatten()
            expected = torch.where(on[here], deviation[here, feature.feature], 0)
            first = sample.position - 1 - sample.place
            np.testing.assert_allclose(sample.activations, expected[first : first + len(sample.tokens)], rtol=1e-4)
            assert sample.activations[sample.place] > 0
        for sample in feature.inactive:
            assert not on[activations.window == sample.window].any()
        for sample in feature.wrong:
            assert sample.activations[sample.place] == 0
            assert sample.token.strip()


def test_any_sae_can_be_studied_and_named(read, tokenizer, tmp_path):
    windows, activations = read
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sae = StandardSAE(StandardSAEConfig(d_in=128, d_sae=32))
        sae.W_enc.data.normal_()
    sae.save_model(tmp_path / "sae")
    sae = bae_lens.load_sae(tmp_path / "sae", hook_name=HOOK)
    for magnitude in ("auto", "rescaled"):
        study = prepare(sae, activations, windows, tokenizer, StudyOptions(magnitude=magnitude), progress=False)
        results = interpret(
            study, FunctionBackend(lambda r: "Yes"), journal=tmp_path / magnitude, options=RunOptions(progress=False)
        )
        assert results.summary.scored == len(study.features) > 0


def test_two_studies_of_the_same_are_equal_and_of_another_sae_are_not(read, tokenizer, make_bae):
    windows, activations = read
    first, again, other = (prepare(make_bae(seed=s), activations, windows, tokenizer, progress=False) for s in (0, 0, 1))
    assert first == again
    assert first.settings["samples"] != other.settings["samples"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpret": 0}, "interpret must be at least 1"),
        ({"least": 5}, "leaves nothing to test on beside 5 samples"),
        ({"features": (99,)}, "no feature 99: this SAE has 48, 0 to 47"),
        ({"features": (1, 1)}, "named twice"),
        ({"least": 10**6}, "none of 48 features is in the top-10 of 1000000 tokens"),
        ({"control": -1}, "control must be at least 0"),
        ({"magnitude": "random", "sentences": True}, "have no meaning"),
    ],
)
def test_impossible_options_are_refused(read, tokenizer, make_bae, options, message):
    windows, activations = read
    with pytest.raises(ValueError, match=message):
        prepare(make_bae(), activations, windows, tokenizer, StudyOptions(**options), progress=False)


def test_activations_of_another_width_are_refused(read, tokenizer, make_bae):
    windows, activations = read
    narrow = Activations(activations.vectors[:, :64].contiguous(), activations.window, activations.position)
    with pytest.raises(ValueError, match="width 64"):
        prepare(make_bae(), narrow, windows, tokenizer, progress=False)
