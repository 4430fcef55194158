"""Python runs this before anything else where its directory stands in PYTHONPATH: no way out of this machine.

An audit hook sees the sockets of every library that is written in Python, and cannot be taken off. What was asked for is noted
in the file that BAE_LENS_ASKED_FOR names, so that it is known even where an error was caught.
"""

import os
import sys
from pathlib import Path

LOOPBACK = ("127.0.0.1", "::1", "localhost", "", None)
NAMES = ("socket.getaddrinfo", "socket.gethostbyname")
ADDRESSES = ("socket.connect", "socket.sendto", "socket.sendmsg")


def refuse(event, args):
    """Raises OSError unless a name or an address is of this machine."""
    if event in NAMES:
        host = args[0]
    elif event in ADDRESSES and isinstance(args[1], tuple):  # others are sockets of files
        host = args[1][0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host in LOOPBACK:
        return
    if "BAE_LENS_ASKED_FOR" in os.environ:
        with Path(os.environ["BAE_LENS_ASKED_FOR"]).open("a", encoding="utf-8") as file:
            file.write(f"{event} {host}\n")
    raise OSError(f"{event}: {host!r} is not of this machine, and tutorials run offline")


sys.addaudithook(refuse)
