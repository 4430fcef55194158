import json
import re
from pathlib import Path

import pytest
from mini_run import MINI, documents

from bae_lens.cli import main
from bae_lens.demo import demo_model_dir
from bae_lens.reproduce.bench import Bench, hook_of, layers_of, pieces, read_sizes
from bae_lens.reproduce.job import MADE_BY, plan, run_reproduce
from bae_lens.reproduce.stages import STAGES

QUIET = {"say": lambda line: None}


def small_bench(tmp_path, **changes):
    """A job of the synthetic stage and one that cannot be."""
    settings = {**MINI, "synthetic": {"d": 8, "samples": 700, "r": [1], "steps": 5, "every": 5}, **changes}
    text = documents(tmp_path / "documents.txt")
    return Bench(out=tmp_path / "out", settings=settings, model=str(demo_model_dir()), text=str(text), **QUIET)


def test_a_reproduction_runs_every_stage_draws_and_judges(mini):
    assert sorted(path.stem for path in (mini / "cells").iterdir()) == sorted(stage.name for stage in STAGES)
    assert len(json.loads((mini / "claims.json").read_text())["claims"]) == 14
    assert (mini / "claims.md").read_text().count("| **") == 14
    assert (mini / "figures" / "index.html").is_file()


def test_the_same_again_does_no_stage_again(tmp_path):
    said: list[str] = []
    bench = small_bench(tmp_path)
    run_reproduce(bench, ["synthetic"])
    (cell,) = (bench.out / "synthetic" / "cells").glob("*-with-*.json")
    before = cell.stat().st_mtime_ns
    bench.say = said.append
    found = run_reproduce(bench, ["synthetic"])
    assert cell.stat().st_mtime_ns == before
    assert any(line.startswith("done already, in ") for line in said)
    assert found.done[0].seconds is not None


def test_a_directory_of_other_settings_is_refused_with_what_differs(tmp_path):
    run_reproduce(small_bench(tmp_path), ["synthetic"])
    other = {"d": 8, "samples": 700, "r": [1], "steps": 6, "every": 5}
    with pytest.raises(ValueError, match=r"settings.synthetic.steps was 5 and is 6"):
        run_reproduce(small_bench(tmp_path, synthetic=other), ["synthetic"])


def test_a_stage_that_fails_stops_no_other_and_its_claims_say_why(tmp_path):
    bench = small_bench(tmp_path, **{"two-tokens": {"r": [1], "tokens": [1, 999_999], "sequences": 700}})
    found = run_reproduce(bench, ["synthetic", "two-tokens", "rate-distortion", "codec"])
    done = {one.stage.name: one for one in found.done}
    assert done["synthetic"].reason == ""
    assert done["two-tokens"].is_failure
    assert "the model's tokens are 0 to" in done["two-tokens"].reason
    assert not done["codec"].is_failure
    assert "needs the stage 'compare', which is not done" in done["codec"].reason
    verdicts = {verdict.claim.id: verdict for verdict in found.verdicts}
    assert verdicts["one_percent"].outcome == "not testable"
    assert "needs the stage 'compare'" in verdicts["one_percent"].words
    assert verdicts["entropy_is_r"].outcome in ("held", "failed")


def test_without_a_task_in_context_learning_is_left_out_and_not_failed(tmp_path):
    bench = small_bench(tmp_path, world={})
    found = run_reproduce(bench, ["inputs", "icl"])
    assert not found.done[1].is_failure
    assert "no task was given (--task FILE" in found.done[1].reason
    assert (bench.texts / "held_out.jsonl").is_file()


@pytest.mark.parametrize("size", ["tiny", "small", "paper"])
def test_a_dry_run_says_every_stage_with_its_settings(size, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stories.txt").write_text("Once upon a time.\n")
    given = ["--model", str(demo_model_dir()), "--text", "stories.txt"] if size == "small" else []
    assert main(["reproduce", "--size", size, "--dry-run", *given]) == 0
    out = capsys.readouterr().out
    for stage in STAGES:
        assert f"\n{stage.name}: {stage.what}" in out
    if size == "paper":
        assert "meta-llama/Llama-3.2-1B, device cuda, layers of features [11, 5, 9, 14]" in out
        assert "d = 2048, samples = 65536, r = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]" in out


def test_settings_of_every_size_are_fields_that_the_stages_take():
    known = {stage.name for stage in STAGES} | {"world", "about", "layers", "every", "processes", "model", "text", "device"}
    for name, size in read_sizes().items():
        assert set(size) <= known, name
    assert set(MADE_BY.values()) <= known


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "tinny"], "unknown size 'tinny'; did you mean 'tiny'"),
        (["--size", "small"], "--size small is for a Llama and a text of yours"),
        (["--model", str(demo_model_dir())], "give --text with --model"),
        (["--layers", "9"], r"layers of features are 1 to 4, got \[9\]"),
        (["--stages", "entropi"], "unknown stage 'entropi'; did you mean 'entropy'"),
        (["--task", "nowhere.txt"], "there is no nowhere.txt"),
        (["--size", "small", "--model", "/nowhere", "--text", "stories"], "there is no Llama /nowhere"),
        (["--size", "small", "--model", str(demo_model_dir()), "--text", "x.txt"], "there is no text file x.txt: give one"),
        (["--processes", "0"], "--processes must be at least 1, got 0"),
    ],
)
def test_wrong_input_is_said_before_anything_is_done(arguments, message, tmp_path, capsys):
    assert main(["reproduce", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_holds_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["reproduce", "--out", str(tmp_path), "--stages", "synthetic"]) == 2
    assert "already holds something" in capsys.readouterr().err


def test_layers_are_the_papers():
    assert [hook_of(layer, 2) for layer in range(3)] == [
        "blocks.0.hook_resid_pre",
        "blocks.1.hook_resid_pre",
        "blocks.1.hook_resid_post",
    ]
    with pytest.raises(ValueError, match="layers of this model are 0 to 2, got 3"):
        hook_of(3, 2)
    assert layers_of(str(demo_model_dir())) == 4


def test_pieces_keep_all_paragraphs_in_order_and_reach_their_length():
    documents = ["a" * 30 + "\n\n" + "b" * 30 + "\n\n" + "c" * 5, "d"]
    found = pieces(documents, 40)
    assert "\n\n".join(found) == "\n\n".join(documents)
    assert len(found[0]) == 62
    assert len(found) == 3


def test_a_plan_names_only_the_stages_that_were_asked_for(tmp_path):
    said = plan(small_bench(tmp_path), ["codec"])
    assert "codec: " in said
    assert "synthetic: " not in said


@pytest.mark.slow
def test_the_tiny_sizes_synthetic_claims_hold_as_they_did_for_us(tmp_path):
    """All stages of it take 18 minutes of one core; each runs in the fast tests, on less."""
    out = tmp_path / "reproduce"
    assert main(["reproduce", "--size", "tiny", "--stages", "synthetic,two-tokens", "--out", str(out)]) == 0
    outcomes = {claim["id"]: claim["outcome"] for claim in json.loads((out / "claims.json").read_text())["claims"]}
    assert outcomes["entropy_is_r"] == "held"
    assert outcomes["entropy_loss_is_needed"] == "held"
