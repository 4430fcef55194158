import json
import multiprocessing

import pytest
from studies import make_study

from bae_lens.comsem import FunctionBackend, Reply, RunOptions, interpret
from bae_lens.comsem.journal import Journal, request_key
from bae_lens.comsem.prompts import interpret_request, judge_request


def test_answers_come_back_as_they_were_written(tmp_path):
    reply = Reply("text\nmore", True, 3, 4, (0.25, 0.5))
    book = Journal(tmp_path / "j", {"a": 1})
    book.add("k", "m", "judge", reply)
    book.add_spent("m", Reply("", prompt_tokens=7, completion_tokens=8))
    book.close()
    again = Journal(tmp_path / "j", {"a": 1})
    assert again.replies == {"k": reply}
    assert sorted(again.usage()) == [("m", 3, 4), ("m", 7, 8)]
    again.close()


def test_a_journal_of_another_configuration_is_refused(tmp_path):
    options = RunOptions(progress=False)
    yes = FunctionBackend(lambda r: "Yes", "one")
    interpret(make_study(1), yes, journal=tmp_path / "j", options=options)
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(ValueError, match="is the journal of another run: settings.interpreter.model was 'one' and is 'two'"):
        interpret(make_study(1), FunctionBackend(lambda r: "Yes", "two"), journal=tmp_path / "j", options=options)
    with pytest.raises(ValueError, match="settings.study.samples was '0' and is '5'"):
        interpret(make_study(1, seed=5), yes, journal=tmp_path / "j", options=options)
    with pytest.raises(ValueError, match="settings.run.shuffled was 8 and is 2"):
        interpret(make_study(1), yes, journal=tmp_path / "j", options=RunOptions(progress=False, shuffled=2))
    assert (tmp_path / "j").read_bytes() == before


@pytest.mark.parametrize("torn", [b"{", b'{"key": "b", "text": "h', b'{"key": "b"}'])
def test_a_last_line_that_is_half_written_is_cut_off(tmp_path, torn):
    book = Journal(tmp_path / "j", {})
    book.add("a", "m", "judge", Reply("Yes"))
    book.close()
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + torn)
    again = Journal(tmp_path / "j", {})
    assert set(again.replies) == {"a"}
    again.add("c", "m", "judge", Reply("No"))
    again.close()
    assert [json.loads(line).get("key") for line in (tmp_path / "j").read_text().splitlines()] == [None, "a", "c"]


def test_a_first_line_that_is_half_written_begins_anew(tmp_path):
    (tmp_path / "j").write_bytes(b'{"format": "bae_lens.com')
    Journal(tmp_path / "j", {}).close()
    assert json.loads((tmp_path / "j").read_text())["format"] == "bae_lens.comsem"


@pytest.mark.parametrize("line", ["{not json}", "[1]", '{"key": "a"}', '{"key": "a", "text": "x", "usage": 3, "model": "m"}'])
def test_a_broken_line_before_the_last_is_an_error_that_names_it(tmp_path, line):
    Journal(tmp_path / "j", {}).close()
    with (tmp_path / "j").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match="j, line 2"):
        Journal(tmp_path / "j", {})


def test_another_file_is_no_journal(tmp_path):
    (tmp_path / "j").write_text('{"some": "json"}\n')
    with pytest.raises(ValueError, match="is no journal of ComSem"):
        Journal(tmp_path / "j", {})


def _open(path, told):
    try:
        Journal(path, {})
    except BlockingIOError as error:
        told.send(str(error))


def test_two_processes_do_not_write_to_one_journal(tmp_path):
    book = Journal(tmp_path / "j", {})
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_open, args=(tmp_path / "j", theirs))
    process.start()
    process.join(20)
    assert ours.poll(1)
    assert "another process is at work" in ours.recv()
    book.close()


def test_the_key_of_a_request_is_of_all_that_its_answer_depends_on():
    samples = make_study(1).features[0].test
    base = request_key({"model": "m"}, judge_request("p", samples[:1]))
    assert base == request_key({"model": "m"}, judge_request("p", samples[:1]))
    others = [
        request_key({"model": "n"}, judge_request("p", samples[:1])),
        request_key({"model": "m", "temperature": 1}, judge_request("p", samples[:1])),
        request_key({"model": "m"}, judge_request("q", samples[:1])),
        request_key({"model": "m"}, judge_request("p", samples[1:2])),
        request_key({"model": "m"}, judge_request("p", samples[:1], chances=True)),
        request_key({"model": "m"}, interpret_request(samples[:1])),
    ]
    assert len({base, *others}) == 7
