import asyncio
import time
from random import Random

import pytest

from bae_lens.comsem.limits import BURST_SECONDS, Limits, Rate
from bae_lens.comsem.retry import Retries, backoff, retry_after


def test_a_rate_lets_so_much_through_a_minute():
    rate, now, waits = Rate(600), 100.0, []
    for _ in range(200):
        wait = rate.take(1, now)
        now += wait
        waits.append(now)
    assert waits[-1] - 100 == pytest.approx(199 / 10 - BURST_SECONDS, abs=0.2)
    for start in range(100):
        assert waits[start + 99] - waits[start] >= (99 / 10 - BURST_SECONDS) - 1e-9
    assert Rate(None).take(10**9, 0) == 0


def test_tokens_that_were_not_used_are_given_back():
    rate = Rate(60)
    rate.take(100, 0.0)
    rate.give_back(90)
    assert rate.take(1, 100.0) == 0.0
    rate = Rate(60)
    rate.take(100, 0.0)
    late = rate.take(1, 0.0)
    rate.give_back(50)
    assert rate.take(1, 0.0) == pytest.approx(late + 1 - 50, abs=1e-6)


def test_no_more_than_so_many_are_on_their_way_and_a_pause_holds_all():
    async def run():
        limits, on_their_way, most = Limits(3), 0, 0

        async def one():
            nonlocal on_their_way, most
            async with limits.slot(1):
                on_their_way += 1
                most = max(most, on_their_way)
                await asyncio.sleep(0.01)
                on_their_way -= 1

        await asyncio.gather(*(one() for _ in range(12)))
        limits.pause(0.15)
        started = time.monotonic()
        await one()
        return most, time.monotonic() - started

    most, waited = asyncio.run(run())
    assert most == 3
    assert waited >= 0.15


def test_waits_double_and_are_drawn_by_lot():
    retries = Retries(first=1.0, longest=8.0)
    for tries, longest in [(1, 1), (2, 2), (3, 4), (4, 8), (9, 8)]:
        waits = [backoff(retries, tries, Random(seed)) for seed in range(50)]
        assert longest / 2 <= min(waits) <= max(waits) <= longest
        assert len(set(waits)) > 40


def test_the_wait_of_a_header_is_read_in_every_form():
    assert retry_after({"retry-after": "3"}) == 3.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({}) is None
    assert retry_after({"retry-after": "Fri, 01 Jan 1999 00:00:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) > 1e9
    assert retry_after({"retry-after": "-5"}) == 0.0
