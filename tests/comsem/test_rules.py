import asyncio
import json

import pytest
from studies import make_sample, make_study

from bae_lens.comsem import RequestError, RulesBackend, RunOptions, interpret
from bae_lens.comsem.backends.properties import CLASSES, is_known, properties_of
from bae_lens.comsem.backends.words import FUNCTION_WORDS
from bae_lens.comsem.prompts import detect_request, judge_request, simulate_request
from bae_lens.comsem.samples import Sample


@pytest.fixture(scope="module")
def rules():
    return RulesBackend(make_study().background)


def pieces(*tokens, index):
    return Sample(tokens, index, index + 1, 0, 0.0)


@pytest.mark.parametrize(
    ("sample", "true", "untrue"),
    [
        (
            pieces("The", " dog", " ran", index=1),
            ['the token "dog"', 'tokens after "the"', "tokens after articles"],
            ["articles"],
        ),
        (
            pieces(" walk", "ing", " on", index=1),
            ['parts of the word "walking"', 'forms of the word "walk"', "continuations of a word"],
            [],
        ),
        (
            pieces(" un", "happ", "y", ".", index=0),
            ['words that begin with "un"', 'words that end with "ppy"', 'tokens before "happ"'],
            [],
        ),
        (pieces("In", " 19", "98", index=2), ["numbers in digits", "tokens with a digit"], ["continuations of a word"]),
        (pieces("the", " third", " one", index=1), ["ordinal numbers", "the second token of a sentence"], ["number words"]),
        (pieces("a", " (", "b", index=1), ["brackets", "opening brackets", "punctuation"], ["closing brackets"]),
        (pieces("She", " CAN", " go", index=1), ["modal verbs", "words in capitals", 'tokens before "go"'], ["single letters"]),
        (pieces("Stop", ".", index=1), ["marks that end a sentence", "the last token of a sentence"], ["quotation marks"]),
        (pieces("a", '"', index=1), ["quotation marks", r'the token "\""'], []),
    ],
)
def test_the_predicates_that_are_true_of_a_token(sample, true, untrue):
    found = properties_of(sample)
    assert set(true) <= found
    assert not set(untrue) & found


def test_every_predicate_is_one_that_can_be_judged():
    samples = [*make_study().background[:200], pieces("a", '"\n\u202e', " (x)", "\ufffd", "", index=1)]
    samples += [make_sample(words.split()[:6], 2) for words in map(" ".join, FUNCTION_WORDS.values()) if len(words.split()) > 5]
    for phrase in {phrase for sample in samples for phrase in properties_of(sample)}:
        assert is_known(phrase), phrase
    assert all(is_known(name) for name in (*CLASSES, *FUNCTION_WORDS))
    assert not is_known("animal nouns")
    assert not is_known('the token "x" and more')


def test_the_most_precise_predicate_is_proposed(rules):
    before = ("red", "run", "three", "house", "of")
    dogs = [make_sample([word, "dog", after], 1) for word, after in zip(before, reversed(before), strict=True)]
    assert rules.propose(dogs) == 'the token "dog"'
    mixed = [
        make_sample([*before[:n], token, after], n)
        for n, token, after in zip(range(1, 6), ["cat", "dog", "cat", "dog", "cat"], reversed(before), strict=True)
    ]
    assert rules.propose(mixed) == 'the token "cat" or the token "dog"'
    after = [
        make_sample([first, "the", word], 2)
        for first, word in zip(before, ("apple", "stone", "river", "horse", "blue"), strict=True)
    ]
    assert rules.propose(after) == 'tokens after "the"'
    forms = [
        make_sample([first, word], 1)
        for first, word in zip(before, ("jumping", "jumps", "jumped", "jump", "jumper"), strict=True)
    ]
    assert rules.propose(forms) == 'forms of the word "jump"'


def test_an_or_inside_quotes_does_not_part_a_phrase(rules):
    odd = Sample(("a", " this or that"), 1, 2, 0, 0.0)
    holds = rules._reader('the token "this or that" or articles')
    assert holds(odd)
    assert holds(odd.at(0))
    assert not holds(make_sample(["this"], 0))


def test_rules_judge_what_they_proposed(rules):
    def ask(request):
        return json.loads(asyncio.run(rules.answer(request)).text)

    dog, cat = make_sample(["a", "dog"], 1), make_sample(["a", "cat"], 1)
    phrase = 'the token "dog" or the token "cow"'
    assert ask(judge_request(phrase, [dog])) == {"answer": "Yes"}
    assert ask(judge_request(phrase, [dog, cat])) == {"answers": ["Yes", "No"]}
    assert ask(detect_request(phrase, [dog, cat])) == {"answers": ["Yes", "No"]}
    assert ask(simulate_request(phrase, dog)) == {"activations": [0, 10]}
    with pytest.raises(RequestError, match="'animal nouns': it is none of their predicates"):
        ask(judge_request("animal nouns", [dog]))


def test_features_of_one_word_are_named_and_anothers_phrase_is_not_true_of_them(tmp_path):
    study = make_study(features=20, control=20)
    rules = RulesBackend(study.background)
    summary = interpret(study, rules, journal=tmp_path / "j", options=RunOptions(progress=False)).summary
    assert summary.over_half >= 15
    assert summary.shuffled < 0.1
    again = interpret(study, RulesBackend(study.background), journal=tmp_path / "k", options=RunOptions(progress=False))
    assert again.summary == summary


def test_rules_need_a_background():
    with pytest.raises(ValueError, match="need a background"):
        RulesBackend([])
