import asyncio
import json
import math
import os

import pytest
from openai_server import Behaviour, rule, server
from studies import make_study

from bae_lens.comsem import FatalError, OpenAIBackend, PassingError, RequestError, RunOptions, interpret
from bae_lens.comsem.prompts import interpret_request, judge_request
from bae_lens.comsem.retry import Retries

OPTIONS = RunOptions(progress=False, retries=Retries(most=5, first=0.01, longest=0.02), shuffled=0)
REQUEST = interpret_request(make_study(1).features[0].interpret)
SECRET = "sk-very-secret-0123456789"


def ask(url, request=REQUEST, model="known-model", **options):
    async def once():
        backend = OpenAIBackend(model, url, **options)
        try:
            return await backend.answer(request)
        finally:
            await backend.close()

    return asyncio.run(once())


def test_an_answer_comes_with_its_usage():
    with server() as url:
        reply = ask(url)
    assert json.loads(reply.text)["phrase"].startswith("like ")
    assert (reply.prompt_tokens, reply.completion_tokens) == (100, 10)


def test_no_api_key_is_an_error_that_names_the_variable(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(
        ValueError, match=r"no API key for https://api\.openai\.com/v1: set the environment variable OPENAI_API_KEY"
    ):
        OpenAIBackend("gpt-4.1-mini")
    with pytest.raises(ValueError, match="set the environment variable MY_KEY"):
        OpenAIBackend("a", "http://localhost:1/v1", key_variable="MY_KEY")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000/v1", "is no address"),
        ("ftp://host/v1", "is no address"),
        ("http://", "is no address"),
        ("http://host:port/v1", "is no address"),
        ("http://user:pass@host/v1", "carries a password"),
    ],
)
def test_what_is_no_address_is_refused(url, message):
    with pytest.raises(ValueError, match=message) as caught:
        OpenAIBackend("a", url)
    assert "pass@" not in str(caught.value)


def test_an_address_where_nothing_answers_ends_the_run(tmp_path):
    with pytest.raises(FatalError, match="nothing answers at http://127.0.0.1:9/v1.*is the address right"):
        interpret(make_study(2), OpenAIBackend("a", "http://127.0.0.1:9/v1"), journal=tmp_path / "j", options=OPTIONS)


def test_an_address_without_its_v1_ends_the_run(tmp_path):
    with server() as url, pytest.raises(FatalError, match=r"chat/completions is not there.*ends in /v1"):
        interpret(make_study(2), OpenAIBackend("a", url.removesuffix("/v1")), journal=tmp_path / "j", options=OPTIONS)


def test_a_model_that_does_not_exist_ends_the_run_and_near_names_are_said(tmp_path):
    missing = {"error": {"message": "The model does not exist", "code": "model_not_found"}}
    told = pytest.raises(FatalError, match="has no model 'known-modle'; did you mean 'known-model'")
    with server(Behaviour(answer=lambda body: (404, missing))) as url, told:
        interpret(make_study(2), OpenAIBackend("known-modle", url), journal=tmp_path / "j", options=OPTIONS)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (401, {"error": {"message": "bad key"}}, FatalError, "does not accept the API key"),
        (403, {"error": {"message": "no"}}, FatalError, "does not accept the API key"),
        (429, {"error": {"message": "quota", "code": "insufficient_quota"}}, FatalError, "the account is used up"),
        (429, {"error": {"message": "slow"}}, PassingError, "429: .*slow"),
        (503, {"error": {"message": "busy"}}, PassingError, "503: .*busy"),
        (400, {"error": {"message": "context too long"}}, RequestError, "400: .*context too long"),
        (200, b"not json", PassingError, "no completion"),
        (200, {"choices": []}, PassingError, "no completion"),
        (200, {"hello": 1}, PassingError, "no completion"),
        (200, [], PassingError, "no completion"),
    ],
)
def test_fatal_errors_are_told_from_passing_ones_and_from_those_of_one_request(status, body, kind, message):
    with server(Behaviour(answer=lambda request: (status, body))) as url, pytest.raises(kind, match=message):
        ask(url)


def test_a_late_answer_and_a_dropped_connection_pass():
    with server(Behaviour(seconds=5)) as url, pytest.raises(PassingError, match="in time"):
        ask(url, timeout=0.2)
    with server(Behaviour(failing=1.0, seed=2)) as url:  # this seed's first failure drops the connection
        kinds = set()
        for _ in range(12):
            try:
                ask(url, timeout=0.5)
            except PassingError as error:
                kinds.add(str(error).split("(")[0][:24])
    assert any("connection" in kind for kind in kinds)


def test_the_wait_that_a_server_asks_for_is_kept():
    with server(Behaviour(failing=1.0, seed=3)) as url:
        waits = []
        for _ in range(16):
            try:
                ask(url, timeout=0.3)
            except PassingError as error:
                waits.append(error.after)
    assert 0.02 in waits


@pytest.mark.parametrize(
    "parameter",
    [
        "response_format is not supported",
        "unknown field: seed",
        "Unsupported value: temperature",
        "use max_completion_tokens, max_tokens is not supported",
    ],
)
def test_a_parameter_that_a_server_does_not_know_is_left_out(parameter):
    name = next(n for n in ("response_format", "seed", "temperature", "max_tokens") if n in parameter)

    def answer(body):
        return (400, {"error": {"message": parameter}}) if name in body else rule(body)

    with server(Behaviour(answer=answer)) as url:
        assert json.loads(ask(url).text)["phrase"]


def test_what_is_sent_asks_for_a_schema_and_for_chances_where_they_are_wanted():
    def answer(body):
        assert body["response_format"]["json_schema"]["strict"] is True
        chances = [{"token": '"Yes', "logprob": math.log(0.6), "top_logprobs": []}]
        chances[0]["top_logprobs"] = [
            {"token": "Yes", "logprob": math.log(0.6)},
            {"token": " no", "logprob": math.log(0.3)},
            {"token": "maybe", "logprob": math.log(0.1)},
        ]
        first = {"token": '{"answer": ', "logprob": 0.0, "top_logprobs": []}
        return (
            {"content": '{"answer": "Yes"}', "logprobs": {"content": [first, *chances]}} if body.get("logprobs") else rule(body)
        )

    sample = make_study(1).features[0].test[0]
    with server(Behaviour(answer=answer)) as url:
        assert ask(url, judge_request("x", [sample], chances=True)).chances == pytest.approx((0.6, 0.3))
        assert ask(url, judge_request("x", [sample])).chances is None


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_KEY", SECRET)
    log = tmp_path / "server.log"

    def answer(body):
        if body["messages"][0]["content"].startswith("You name"):
            return json.dumps({"phrase": f"I was told {SECRET}"})
        return (400, {"error": {"message": f"your key {SECRET} is fine, your request is not"}})

    with server(Behaviour(answer=answer, log=log)) as url:
        backend = OpenAIBackend("known-model", url, key_variable="MY_KEY")
        results = interpret(make_study(3), backend, journal=tmp_path / "run" / "journal.jsonl", options=OPTIONS)
    assert f"Bearer {SECRET}" in log.read_text()
    log.unlink()
    assert results.features[0].phrase == "I was told [key]"
    assert "your key [key] is fine" in results.features[0].reason
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    for body, status in ((f"bad {SECRET}", 401), (f"bad {SECRET}", 500), (f"bad {SECRET}", 404)):
        with server(Behaviour(answer=lambda _, b=body, s=status: (s, {"error": {"message": b}}))) as url:
            with pytest.raises(RuntimeError) as caught:
                ask(url, key_variable="MY_KEY")
            assert SECRET not in f"{caught.value}{caught.value.args}"
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    assert SECRET not in repr(results)


def test_openais_key_is_not_sent_to_another_server(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with server(Behaviour(log=tmp_path / "log")) as url:
        ask(url)
    assert SECRET not in (tmp_path / "log").read_text()
    assert os.environ["OPENAI_API_KEY"] == SECRET
