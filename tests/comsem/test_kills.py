import json
import multiprocessing
import os
import random
import signal
import time

import pytest
from openai_server import Behaviour, server
from studies import make_study, outcome

from bae_lens.comsem import OpenAIBackend, RunOptions, interpret
from bae_lens.comsem.journal import request_key
from bae_lens.comsem.retry import Retries

OPTIONS = RunOptions(concurrency=16, retries=Retries(most=40, first=0.01, longest=0.05), progress=False, shuffled=2)


class Watched(OpenAIBackend):
    """Writes the key of each request that it sends."""

    def __init__(self, log, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.log = log.open("a", buffering=1)

    async def answer(self, request):
        self.log.write(request_key(self.identity(), request) + "\n")
        return await super().answer(request)


def work(study, url, journal, sent):
    os.setpgrp()
    interpret(study, Watched(sent, "known-model", url, timeout=1.0), journal=journal, options=OPTIONS)


def keys(path):
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[1:-1]
    return [json.loads(line)["key"] for line in lines if "key" in json.loads(line)]


def survive(tmp_path, kills, features, seed=0):
    """Runs a study against a failing server, killed so many times by lot; what it sent after each kill is checked."""
    study = make_study(features)
    lot = random.Random(seed)
    with server() as url:
        expected = outcome(
            interpret(study, OpenAIBackend("known-model", url), journal=tmp_path / "calm.jsonl", options=OPTIONS), study
        )
    journal, context = tmp_path / "journal.jsonl", multiprocessing.get_context("fork")
    killed = 0
    with server(Behaviour(failing=0.3, hang=1.5)) as url:
        for attempt in range(kills):
            known, sent = keys(journal), tmp_path / f"sent{attempt}"
            process = context.Process(target=work, args=(study, url, journal, sent))
            process.start()
            while process.is_alive() and not (sent.exists() and sent.stat().st_size):
                time.sleep(0.01)
            process.join(lot.uniform(0.0, 0.8))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            process.join()
            if sent.exists():
                assert not set(known) & set(sent.read_text().split())
        known = keys(journal)
        last = Watched(tmp_path / "last", "known-model", url, timeout=1.0)
        found = interpret(study, last, journal=journal, options=OPTIONS)
        assert not set(known) & set((tmp_path / "last").read_text().split())
    assert killed >= kills // 2
    assert len(keys(journal)) == len(set(keys(journal)))
    return outcome(found, study), expected


def test_against_a_server_that_fails_three_in_ten_and_killed_twice_the_results_are_those_of_a_calm_run(tmp_path):
    found, expected = survive(tmp_path, kills=2, features=8)
    assert found == expected
    assert expected[2].scored == 8


@pytest.mark.slow
def test_killed_ten_times_the_results_are_those_of_a_calm_run(tmp_path):
    found, expected = survive(tmp_path, kills=10, features=60, seed=1)
    assert found == expected
    assert expected[2].scored == 60
