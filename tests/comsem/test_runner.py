import asyncio
import json

import pytest
from openai_server import Behaviour, server
from studies import make_study, outcome

from bae_lens.comsem import FatalError, FunctionBackend, OpenAIBackend, PassingError, Reply, RequestError, RunOptions, interpret
from bae_lens.comsem.ledger import Price
from bae_lens.comsem.retry import Retries

QUICK = Retries(most=40, first=0.01, longest=0.05)
OPTIONS = RunOptions(concurrency=16, retries=QUICK, progress=False, shuffled=2)


def run(study, url, journal, options=OPTIONS, **backend):
    return interpret(study, OpenAIBackend("known-model", url, timeout=1.0, **backend), journal=journal, options=options)


def test_a_run_that_is_over_is_read_from_its_journal_without_a_request(tmp_path):
    study = make_study(4)
    with server() as url:
        first = run(study, url, tmp_path / "journal.jsonl")
    again = run(study, "http://127.0.0.1:9/v1", tmp_path / "journal.jsonl")  # nothing answers there
    assert outcome(first, study) == outcome(again, study)
    assert again.usage == first.usage
    assert first.usage["known-model"].prompt_tokens == 100 * first.usage["known-model"].requests


def test_interpreter_and_judge_are_chosen_apart(tmp_path):
    study = make_study(3)
    namer = FunctionBackend(lambda request: '{"phrase": "things"}', "namer")
    judged = []

    async def judge(request):
        judged.append(request.phrase)
        return "Yes"

    results = interpret(study, namer, FunctionBackend(judge), journal=tmp_path / "j", options=OPTIONS)
    assert {r.phrase for r in results.features} == {"things"}
    assert set(judged) == {"things"}
    assert results.summary.score == 1.0
    assert set(results.usage) == {"namer", "judge"}


def test_equal_requests_are_sent_once(tmp_path):
    study = make_study(2)
    study = study._replace(features=[study.features[0], study.features[0]._replace(feature=9)], control=[])
    calls = []
    results = interpret(study, FunctionBackend(lambda r: calls.append(r) or "Yes"), journal=tmp_path / "j", options=OPTIONS)
    assert len(calls) == 1 + len(set(study.features[0].test))
    assert results.features[0].comsem == results.features[1].comsem


def test_one_features_failure_stops_no_other_and_says_why(tmp_path):
    study = make_study(6)
    doomed = study.features[2].interpret

    def answer(request):
        if request.samples == doomed:
            raise RequestError("400: too long")
        return "a thing" if request.kind == "interpret" else "No"

    results = interpret(study, FunctionBackend(answer), journal=tmp_path / "j", options=OPTIONS)
    assert [r.status for r in results.features] == ["scored"] * 2 + ["failed"] + ["scored"] * 3
    assert results.features[2].reason == "no name: 400: too long"
    assert results.summary.failed == 1
    assert results.summary.score == 0.0


def test_failed_judgements_are_counted_and_half_of_them_fail_the_feature(tmp_path):
    study = make_study(2, control=0)
    few, many = set(study.features[0].test[:3]), set(study.features[1].test[:5])

    def answer(request):
        if request.kind == "judge" and request.samples[0] in few | many:
            raise RequestError("no")
        return "a thing" if request.kind == "interpret" else "Yes"

    results = interpret(study, FunctionBackend(answer), journal=tmp_path / "j", options=OPTIONS)
    first, second = results.features
    assert (first.status, first.comsem) == ("scored", (5, 5, 3))
    assert second.status == "failed"
    assert second.reason.startswith("5 of 8 judgements failed: no")
    assert second.answers.count("no") == 5


def test_too_many_failures_end_the_run(tmp_path):
    def answer(request):
        raise RequestError("503 for ever")

    with pytest.raises(FatalError, match="20 of 20 features failed.*503 for ever.*start again"):
        interpret(make_study(30), FunctionBackend(answer), journal=tmp_path / "j", options=OPTIONS)


def test_a_passing_error_is_tried_again_and_at_last_is_a_failure(tmp_path):
    tries = []

    def answer(request):
        tries.append(request)
        raise PassingError("later")

    options = RunOptions(retries=Retries(most=3, first=0.001), progress=False, concurrency=1)
    results = interpret(make_study(1, control=0), FunctionBackend(answer), journal=tmp_path / "j", options=options)
    assert len(tries) == 3
    assert results.features[0].reason == "no name: no answer in 3 tries; the last: later"
    assert results.retried == 3


def test_a_server_that_asks_to_wait_too_long_ends_the_run(tmp_path):
    def answer(request):
        raise PassingError("quota", after=5000)

    with pytest.raises(FatalError, match="asks to wait 5000 s"):
        interpret(make_study(2), FunctionBackend(answer), journal=tmp_path / "j", options=OPTIONS)


def test_an_unreadable_answer_is_asked_for_once_more(tmp_path):
    asked = []

    def answer(request):
        asked.append(request)
        repaired = len(request.messages) > 2
        if request.kind == "interpret":
            return '{"phrase": "fine"}' if repaired else "well,\nlet me think"
        return "perhaps"

    results = interpret(make_study(1, control=0), FunctionBackend(answer), journal=tmp_path / "j", options=OPTIONS)
    (result,) = results.features
    assert result.phrase == "fine"
    assert asked[1].messages[2]["content"] == "well,\nlet me think"
    assert result.status == "failed"
    assert "unreadable, after one repair: an answer is neither Yes nor No" in result.reason
    assert len(asked) == 2 + 2 * len(set(make_study(1, control=0).features[0].test))


def test_a_refusal_is_asked_three_times_and_paid_for_each_time(tmp_path):
    refusals = []

    def answer(request):
        refusals.append(request)
        return Reply("I would rather not", refused=True, prompt_tokens=10, completion_tokens=2)

    backend = FunctionBackend(answer)
    results = interpret(make_study(1, control=0), backend, journal=tmp_path / "j", options=OPTIONS)
    assert len(refusals) == 3
    assert results.features[0].reason == "no name: refused: I would rather not"
    assert results.usage[backend.name].prompt_tokens == 30
    again = interpret(make_study(1, control=0), backend, journal=tmp_path / "j", options=OPTIONS)
    assert len(refusals) == 3  # the answer was a refusal: it is not asked for again
    assert again.usage == results.usage


def test_a_budget_is_never_passed_and_more_of_it_goes_on(tmp_path):
    study = make_study(10, control=0)
    prices = {"known-model": Price(1000.0, 1000.0)}  # 110 tokens a request are 0.11 dollars
    with server() as url:
        small = RunOptions(budget=8.0, prices=prices, progress=False, concurrency=4, shuffled=0)
        first = run(study, url, tmp_path / "j", small)
        assert first.stopped is not None
        assert "8 dollars" in first.stopped
        assert 0 < first.usage["known-model"].cost <= 8.0
        assert first.summary.stopped > 0
        assert first.summary.scored + first.summary.stopped == 10
        large = RunOptions(budget=10000.0, prices=prices, progress=False, concurrency=4, shuffled=0)
        second = run(study, url, tmp_path / "j", large)
        assert second.stopped is None
        calm = run(study, url, tmp_path / "calm", large)
    assert outcome(second, study) == outcome(calm, study)
    assert second.usage == calm.usage  # nothing was paid for twice


def test_a_budget_too_small_for_one_request_is_refused_before_anything_is_sent(tmp_path):
    log = tmp_path / "log"
    with server(Behaviour(log=log)) as url, pytest.raises(ValueError, match="too small for one request, which may cost"):
        run(make_study(2), url, tmp_path / "j", RunOptions(budget=1e-6, prices={"known-model": Price(1, 1)}, progress=False))
    assert not log.exists() or not log.read_text()
    assert not (tmp_path / "j").exists()


def test_a_budget_needs_a_price(tmp_path):
    backend, options = OpenAIBackend("gpt-4.1-minni", "http://127.0.0.1:9/v1"), RunOptions(budget=1.0, progress=False)
    told = "a budget needs a price, and 'gpt-4.1-minni' is not in the table.*did you mean 'gpt-4.1-mini'"
    with pytest.raises(ValueError, match=told):
        interpret(make_study(1), backend, journal=tmp_path / "j", options=options)


def test_the_shuffled_control_judges_anothers_phrase(tmp_path):
    study = make_study(5, control=0)
    asked = []

    def answer(request):
        if request.kind == "interpret":
            return f"phrase {[f.interpret for f in study.features].index(request.samples)}"
        asked.append((request.phrase, request.samples[0]))
        own = [f for f in study.features if request.samples[0] in f.test]
        return "Yes" if any(request.phrase == f"phrase {f.feature}" for f in own) else "No"

    results = interpret(study, FunctionBackend(answer), journal=tmp_path / "j", options=RunOptions(progress=False, shuffled=4))
    assert [r.donor for r in results.features] == [1, 0, 1, 2, 3]
    assert all(r.comsem.score == 1.0 and r.shuffled == (0, 4, 0) for r in results.features)
    assert results.summary.shuffled == 0.0


def test_detection_fuzzing_and_simulation_tell_a_phrase_that_fits_from_one_that_does_not(tmp_path):
    study = make_study(3, control=0, sentences=True)

    def knowing(request):
        if request.kind == "interpret":
            return "the active ones"
        if request.kind == "simulate":
            return json.dumps({"activations": [round(10 * a) for a in request.samples[0].activations]})
        active = [any(s.activations) if request.kind == "detect" else s.activations[s.place] > 0 for s in request.samples]
        words = ["Yes" if a else "No" for a in active]
        return json.dumps({"answers": words} if len(words) > 1 else {"answer": words[0]})

    options = RunOptions(progress=False, scores=("detection", "fuzzing", "simulation"))
    summary = interpret(study, FunctionBackend(knowing), journal=tmp_path / "j", options=options).summary
    assert (summary.detection, summary.fuzzing) == (1.0, 1.0)
    assert summary.simulation == pytest.approx(1.0)

    def saying_yes(request):
        if request.kind == "interpret":
            return "anything"
        if request.kind == "simulate":
            return json.dumps({"activations": [5] * len(request.samples[0].tokens)})
        return json.dumps({"answers": ["Yes"] * len(request.samples)} if len(request.samples) > 1 else {"answer": "Yes"})

    summary = interpret(study, FunctionBackend(saying_yes), journal=tmp_path / "k", options=options).summary
    assert (summary.detection, summary.fuzzing, summary.simulation) == (0.5, 0.5, None)
    assert summary.score == 1.0  # which is why the ComSem score is read beside its controls


def test_calibration_takes_the_leaning_of_a_model_out(tmp_path):
    study = make_study(1, control=0)
    good = set(study.features[0].test[:4])

    def leaning(request):
        if request.kind == "interpret":
            return "a thing"
        chances = (0.8, 0.2) if request.samples[0].token == "N/A" else (0.9, 0.1) if request.samples[0] in good else (0.7, 0.3)
        return Reply("Yes", chances=chances if request.chances else None)

    options = RunOptions(progress=False, calibrate=True)
    (result,) = interpret(study, FunctionBackend(leaning), journal=tmp_path / "j", options=options).features
    assert result.comsem.score == 1.0
    assert result.calibrated.score == 0.5
    (without,) = interpret(
        study, FunctionBackend(lambda r: "Yes", "no chances"), journal=tmp_path / "k", options=options
    ).features
    assert without.calibrated is None


def test_several_samples_may_be_judged_at_a_time(tmp_path):
    study = make_study(2, control=0)
    with server() as url:
        one = run(study, url, tmp_path / "one", RunOptions(progress=False, shuffled=0))
        three = run(study, url, tmp_path / "three", RunOptions(progress=False, shuffled=0, at_a_time=3))
    assert [r.answers for r in one.features] == [r.answers for r in three.features]
    assert three.usage["known-model"].requests < one.usage["known-model"].requests / 2


def test_it_runs_inside_a_loop_too(tmp_path):
    async def notebook():
        return interpret(make_study(1), FunctionBackend(lambda r: "Yes"), journal=tmp_path / "j", options=OPTIONS)

    assert asyncio.run(notebook()).summary.score == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency must be over 0"),
        ({"scores": ("detektion",)}, "unknown score 'detektion'; did you mean 'detection'"),
        ({"scores": ("detection",)}, "need a study with sentences=True"),
        ({"at_a_time": 0}, "at_a_time must be at least 1"),
        ({"budget": -1.0}, "the budget must be over 0"),
        ({"requests_a_minute": 0.0}, "requests a minute must be over 0"),
    ],
)
def test_impossible_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        interpret(make_study(1), FunctionBackend(lambda r: "Yes"), journal=tmp_path / "j", options=RunOptions(**options))
