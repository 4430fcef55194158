"""Few examples by default and the same ones every time; many, and new ones, with BAE_LENS_FUZZ=full (`make test-all`)."""

import os
import shutil

import pytest
from file_readers import BY_NAME
from hypothesis import HealthCheck, settings

UNHURRIED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("few", max_examples=12, derandomize=True, **UNHURRIED)
settings.register_profile(
    "full",
    max_examples=int(os.environ.get("BAE_LENS_FUZZ_EXAMPLES", "400")),
    derandomize=bool(os.environ.get("CI")),
    **UNHURRIED,
)
settings.load_profile(os.environ.get("BAE_LENS_FUZZ", "few"))


@pytest.fixture(scope="session")
def good_files(tmp_path_factory):
    """A directory of a reader's own to alter, by the reader's name and where it shall be."""
    made = {}

    def copy(name, target):
        reader = BY_NAME[name]
        if reader.make not in made:
            made[reader.make] = tmp_path_factory.mktemp(name)
            reader.make(made[reader.make])
        shutil.copytree(made[reader.make], target, dirs_exist_ok=True)
        return reader

    return copy
