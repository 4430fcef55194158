"""Altered files for every reader: it returns, or raises one of the documented errors, in bounded time."""

import json
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
from bounded import bounded
from file_readers import DOCUMENTED, READERS, files_of
from fuzzing import LONG
from hypothesis import given
from hypothesis import strategies as st

JSON_VALUES = st.sampled_from([None, True, 0, -1, 1, 2**63, 1.5, 1e308, "", "x", "../x", "\0", [], [0], {}, {"x": 1}])


@st.composite
def alterations(draw):
    """What is done to a file: a function of its bytes."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "empty", "gone", "text", "json", "json", "json", "header"]))
    at, value = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 255))
    values, places = (
        draw(st.lists(JSON_VALUES, min_size=1, max_size=2)),
        draw(st.lists(st.integers(0, 400), min_size=2, max_size=2)),
    )
    return Alteration(kind, at, value, tuple(map(json.dumps, values)), tuple(places))


class Alteration:
    """A way to alter a file, that prints as what it does."""

    def __init__(self, kind, at, value, values, places):
        self.kind, self.at, self.value, self.values, self.places = kind, at, value, values, places

    def __repr__(self):
        return f"Alteration({self.kind!r}, {self.at}, {self.value}, {self.values}, {self.places})"

    def apply(self, file: Path) -> None:
        content = file.read_bytes()
        place = int(self.at * len(content))
        if self.kind == "gone":
            file.unlink()
        else:
            file.write_bytes(self.altered(content, place))

    def altered(self, content: bytes, place: int) -> bytes:
        if self.kind == "cut":
            return content[:place]
        if self.kind == "flip" and content:
            return content[:place] + bytes([content[place] ^ (self.value or 1)]) + content[place + 1 :]
        if self.kind == "insert":
            return content[:place] + bytes([self.value]) * (self.places[0] + 1) + content[place:]
        if self.kind == "empty":
            return b""
        if self.kind == "text":
            return self.values[0].encode()
        if self.kind == "header":  # lengths of binary formats stand first
            return self.value.to_bytes(8, "little") + content[8:]
        return with_other_values(content, self)


def with_other_values(content: bytes, alteration: Alteration) -> bytes:
    """JSON, or each line of JSON, with some of its values replaced; other bytes as they are."""
    try:
        documents = [json.loads(content)]
    except ValueError:
        try:
            documents = [json.loads(line) for line in content.splitlines()]
        except ValueError:
            return content[: int(alteration.at * len(content))]
    slots = [slot for document in documents for slot in slots_of(document)]
    for value, place in zip(alteration.values, alteration.places, strict=False):
        if slots:
            holder, key = slots[place % len(slots)]
            if isinstance(holder, dict) and place % 3 == 0:
                holder.pop(key, None)
            else:
                holder[key] = json.loads(value)
    return "\n".join(map(json.dumps, documents)).encode()


def slots_of(value):
    """Every place of a JSON value that holds another."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from slots_of(inner)


@pytest.mark.parametrize("reader", [reader for reader in READERS if not reader.is_long], ids=lambda reader: reader.name)
@given(which=st.integers(0, 200), alteration=alterations())
def test_an_altered_file_is_read_or_refused_in_words(reader, good_files, which, alteration):
    read_altered(reader, good_files, which, alteration)


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader.is_long], ids=lambda reader: reader.name)
@LONG
@given(which=st.integers(0, 200), alteration=alterations())
def test_an_altered_file_of_a_long_job_is_read_or_refused_in_words(reader, good_files, which, alteration):
    read_altered(reader, good_files, which, alteration)


def read_altered(reader, good_files, which, alteration):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = Path(folder) / "files"
        good_files(reader.name, place)
        names = files_of(place)
        name = names[which % len(names)]
        alteration.apply(place / name)
        with bounded(60, f"{reader.name} with {name} altered by {alteration}"):
            try:
                reader.read(place)
            except DOCUMENTED as error:
                assert str(error).strip(), f"{type(error).__name__} without a word for {name}"  # noqa: PT017


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_file_that_was_not_altered_is_read(reader, good_files, tmp_path):
    good_files(reader.name, tmp_path / "files")
    reader.read(tmp_path / "files")
    shutil.rmtree(tmp_path / "files")
