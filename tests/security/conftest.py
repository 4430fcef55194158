"""Good files of every reader, made once."""

import shutil

import pytest
from file_readers import BY_NAME


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
