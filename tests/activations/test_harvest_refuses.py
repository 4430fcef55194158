"""What a harvest to disk refuses before it writes anything, and what it says of its size."""

import errno
import shutil

import pytest
import torch
from harvests import HOOKS, TEXT


def test_another_configuration_over_an_old_directory_is_refused_with_the_fields_that_differ(harvest, hugging_face):
    path = harvest().path
    before = {file: file.read_bytes() for file in path.rglob("*.*") if file.is_file()}
    with pytest.raises(ValueError, match=r"dtype was 'fp32' and is 'bf16'; positions was 'all' and is \[1, 2\]"):
        harvest(dtype="bf16", positions=[1, 2], min_tokens=1)
    with pytest.raises(ValueError, match=r"text.fingerprint was"):
        harvest(text=[*TEXT[:-1], "B."])
    with pytest.raises(ValueError, match=r"hooks.blocks.1.hook_resid_pre was 128 and is None"):
        harvest(hooks=HOOKS[1:])
    with torch.no_grad():
        hugging_face.model.norm.weight[0] += 1
    with pytest.raises(ValueError, match="weights was"):
        harvest()
    with torch.no_grad():
        hugging_face.model.norm.weight[0] -= 1
    assert before == {file: file.read_bytes() for file in path.rglob("*.*") if file.is_file()}


def test_a_directory_that_holds_something_else_is_left_alone(harvest, tmp_path):
    (tmp_path / "acts").mkdir()
    (tmp_path / "acts" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="already holds something"):
        harvest()
    assert [path.name for path in (tmp_path / "acts").iterdir()] == ["thesis.txt"]


def test_text_without_a_sequence_that_is_long_enough_is_refused_with_what_was_left_out(harvest, tmp_path):
    with pytest.raises(ValueError, match=r"of 32 documents, 31 sequences were too short, 1 documents had no token; 100 tokens"):
        harvest(text=[*TEXT, ""], positions=[1, 100], context_size=128)
    with pytest.raises(ValueError, match=r"3 documents were longer than the context; .* longest document has \d+"):
        harvest(text=[TEXT[4]] * 3, positions="last", context_size=16)
    with pytest.raises(ValueError, match="0 documents in memory holds no text"):
        harvest(text=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": [1, 256]}, "position 256 is beyond the model's context of 256 tokens: its last position is 255"),
        ({"context_size": 512}, "a context of 512 tokens is longer than the model's, which has 256"),
        ({"positions": [1, 32]}, "positions 32 are beyond the context: 1 to 31"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"hooks": ["blocks.*.hook_resid_prr"]}, "did you mean 'blocks"),
    ],
)
def test_what_cannot_be_harvested_is_refused_and_leaves_nothing(harvest, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        harvest(**options)
    assert not list(tmp_path.iterdir())


def test_what_fp16_cannot_hold_is_refused(harvest, hugging_face):
    with torch.no_grad():
        hugging_face.model.embed_tokens.weight.mul_(1e7)
    try:
        with pytest.raises(ValueError, match="too large for float16: harvest in bf16 or fp32"):
            harvest(hooks=["hook_embed"], dtype="fp16")
    finally:
        with torch.no_grad():
            hugging_face.model.embed_tokens.weight.div_(1e7)


def test_the_size_on_disk_is_said_first_and_refused_where_the_disk_cannot_hold_it(harvest, tmp_path):
    said = []
    result = harvest(say=said.append, positions=[1, 2])
    assert "2 hook points of a Hugging Face model" in said[0]
    assert "BOS is left out" in said[0]
    assert f"about {result.vectors} vectors a hook point: {result.vectors * 1040 / 1024:.3g} KiB on disk" in said[1]
    with pytest.raises(
        OSError, match=r"cannot hold this harvest: .* TiB are needed, .* free, .* missing; ask for fewer"
    ) as raised:
        harvest("huge", tokens=10**13)
    assert raised.value.errno == errno.ENOSPC
    assert not (tmp_path / "huge").exists()


@pytest.mark.parametrize("rank", [0, 7])
def test_what_is_needed_on_disk_is_that_of_all_processes(harvest, monkeypatch, tmp_path, rank):
    vector = 2 * 128 * 4 + 16
    tokens = 2 * shutil.disk_usage(tmp_path).free // vector  # each of eight processes alone would have room
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", str(rank))
    said = []
    with pytest.raises(OSError, match=r"cannot hold this harvest: .* are needed, .* are missing"):
        harvest(tokens=tokens, say=said.append)
    assert f"at most {tokens:,} vectors a hook point of all 8 processes: " in said[1]
    assert not (tmp_path / "acts").exists()
