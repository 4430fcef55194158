"""Few examples by default and the same ones every time; many with BAE_LENS_FUZZ=full (`make test-all`), and new ones where
BAE_LENS_FUZZ_EXAMPLES says how many. What takes long (`fuzzing.LONG`) has at most 25."""

import os

from hypothesis import HealthCheck, settings

UNHURRIED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("few", max_examples=12, derandomize=True, **UNHURRIED)
settings.register_profile(
    "full",
    max_examples=int(os.environ.get("BAE_LENS_FUZZ_EXAMPLES", "60")),
    derandomize="BAE_LENS_FUZZ_EXAMPLES" not in os.environ,
    **UNHURRIED,
)
settings.load_profile(os.environ.get("BAE_LENS_FUZZ", "few"))
