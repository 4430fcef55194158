import os
import signal

import pytest

from bae_lens.stopping import Terminated, interruption, sigterm_as_ctrl_c, stopped_by


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def ctrl_c_raises():
    """A shell has processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_of_each_kind_is_held_back_and_a_second_strikes():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with sigterm_as_ctrl_c(), interruption() as stopped:
        assert stopped() is None
        send(signal.SIGINT)
        send(signal.SIGTERM)  # who started this process sends it after a Ctrl-C that both have got
        assert stopped() == signal.SIGINT
        with pytest.raises(Terminated):
            send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_what_a_signal_becomes_and_a_handler_of_someone_elses_stays():
    assert type(stopped_by(signal.SIGINT, "x")) is KeyboardInterrupt
    assert isinstance(stopped_by(signal.SIGTERM, "x"), Terminated)
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with sigterm_as_ctrl_c():
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert seen == [signal.SIGTERM]
