"""Work for jobs, in a module that other processes can import."""

import os
import signal
import time


def double(value):
    return {"rows": [], "twice": 2 * value, "pid": os.getpid()}


def fail(reason):
    raise FloatingPointError(reason)


def not_finite():
    return {"rows": [{"place": {}, "figures": {"fvu": float("nan")}}]}


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)
