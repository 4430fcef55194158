import json

import pytest
from openai_server import Behaviour, server

import bae_lens
from bae_lens.cli import main
from bae_lens.comsem.job import crowding

HOOK = "blocks.1.hook_resid_pre"
SMALL = ["--sentences", "150", "--control", "2", "--shuffled", "2", "--n-test", "3", "--features", *map(str, range(12))]


@pytest.fixture(scope="module")
def bae_dir(models, tmp_path_factory):
    from transformer_lens import HookedTransformer

    windows = bae_lens.tokenize(
        models(HookedTransformer).tokenizer, ["The module raises an error if the file is not open. " * 9], 64
    )
    vectors = bae_lens.harvest(models(HookedTransformer), windows, HOOK, progress=False).vectors
    bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=24))
    bae.W_enc.data.normal_(std=0.1)
    bae.b_enc.data.fill_(-1.0)
    bae.cfg.metadata.hook_name = HOOK
    bae.estimate_prior(vectors)
    return bae_lens.save(bae, tmp_path_factory.mktemp("bae") / "bae")


def interpret(*options):
    return main(["interpret", *map(str, options)])


def test_the_embedded_default_is_named_by_rules_and_the_same_command_asks_nothing_again(bae_dir, tmp_path, capsys):
    out = tmp_path / "run"
    assert interpret("--bae", bae_dir, "--out", out, "--scores", "detection", *SMALL) == 0
    printed = capsys.readouterr().out
    assert "features activated (FA)" in printed
    assert "controls: shuffled phrases" in printed
    journal, rows = (out / "journal.jsonl").read_bytes(), (out / "features.jsonl").read_bytes()
    assert interpret("--bae", bae_dir, "--out", out, "--scores", "detection", *SMALL) == 0
    assert (out / "journal.jsonl").read_bytes() == journal
    assert (out / "features.jsonl").read_bytes() == rows
    assert interpret("--bae", bae_dir, "--out", out, *SMALL) == 2
    assert "settings.run.scores was ['detection'] and is []" in capsys.readouterr().err


def test_a_k_that_is_a_large_share_of_the_features_is_said_to_be_one():
    assert "would be 1. " in crowding(10, 512)
    assert "would be 2. " in crowding(10, 2048)
    assert crowding(10, 4096) is None
    assert crowding(3, 512) is None


def test_a_server_names_and_another_model_judges(bae_dir, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("The module raises an error if the file is not open. It returns the list.\n" * 40)
    with server(Behaviour(log=tmp_path / "log")) as url:
        options = ["--bae", bae_dir, "--text", tmp_path / "text.txt", "--backend", url, "--llm", "a", "--judge-llm", "b"]
        options += ["--budget", "1", "--price", "a=1,1", "--price", "b=1,1", "--out", tmp_path / "run", *SMALL]
        assert interpret(*options, "--dry-run") == 0
        assert "Dry run: nothing was sent" in capsys.readouterr().out
        assert not (tmp_path / "log").exists() or not (tmp_path / "log").read_text()
        assert not (tmp_path / "run").exists()
        assert interpret(*options) == 0
    usage = json.loads((tmp_path / "run" / "summary.json").read_text())["usage"]
    assert set(usage) == {"a", "b"}
    assert usage["b"]["requests"] > usage["a"]["requests"] > 0
    assert 0 < usage["a"]["cost"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--backend", "openai", "--llm", "gpt-4.1-mini"],
            "no API key for https://api.openai.com/v1: set the environment variable",
        ),
        (["--backend", "openai"], "give a name (--llm"),
        (["--backend", "opnai", "--llm", "a"], "'opnai' is no backend"),
        (["--backend", "http://", "--llm", "a"], "is no address"),
        (["--backend", "http://localhost:1/v1", "--llm", "odd", "--budget", "1"], "give --price odd="),
        (["--model", "somewhere"], "give --text with --model"),
        (["--price", "x"], "a price is MODEL=PROMPT,COMPLETION"),
    ],
)
def test_wrong_input_is_an_error_before_anything_is_loaded(bae_dir, tmp_path, options, message, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert interpret("--bae", bae_dir, "--out", tmp_path / "run", *options) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "== Load" not in captured.out
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_something_else_is_refused(bae_dir, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    assert interpret("--bae", bae_dir, "--out", tmp_path) == 2
    assert "already holds something" in capsys.readouterr().err
