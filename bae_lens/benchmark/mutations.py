"""Files that are not as they were written: a byte flipped, bytes cut, put in, taken out, moved or zeroed."""

import random

KINDS = ("flip", "set", "cut", "insert", "remove", "swap", "zero", "append")


def mutated(content: bytes, generator: random.Random) -> bytes:
    """A file that differs from this one."""
    kind, at, length = generator.choice(KINDS), generator.randrange(len(content)), generator.randint(1, 64)
    found = bytearray(content)
    if kind == "flip":
        found[at] ^= 1 << generator.randrange(8)
    elif kind == "set":
        found[at] = (found[at] + generator.randint(1, 255)) % 256
    elif kind == "cut":
        del found[at:]
    elif kind == "insert":
        found[at:at] = generator.randbytes(length)
    elif kind == "remove":
        del found[at : at + length]
    elif kind == "swap":
        other = generator.randrange(len(content))
        found[at : at + length], found[other : other + length] = found[other : other + length], found[at : at + length]
    elif kind == "zero":
        found[at : at + length] = bytes(len(found[at : at + length]))
    else:
        found += generator.randbytes(length)
    return bytes(found) if bytes(found) != content else mutated(content, generator)
