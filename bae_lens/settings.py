"""Settings as JSON values, and what differs between those of two runs."""

import json
from typing import Any

FREE_ON_RESUME = ("device", "checkpoint_every", "keep_checkpoints", "log_to", "log_every", "validate_every")
"""Fields that a resumed run may change: they say nothing of what comes out."""


def as_json(value: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a file."""
    return json.loads(json.dumps(value))


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "", *, older: bool = False) -> list[str]:
    """Each field that differs, with both values; but for those that may change on resume.

    >>> differences({"sae": {"d_sae": 8}}, {"sae": {"d_sae": 16}})
    ['sae.d_sae was 8 and is 16']

    Args:
        older: Leave out fields that `before` has not got: an older version wrote it.
    """
    found = []
    for name in sorted(before if older else {**before, **now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{name}.", older=older)
        elif old != new and name not in FREE_ON_RESUME:
            found.append(f"{prefix}{name} was {old!r} and is {new!r}")
    return found
