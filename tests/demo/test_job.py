import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from embedded import HOOK
from sae_lens import SAE

import bae_lens
from bae_lens.cli import main
from bae_lens.demo import demo_model_dir
from bae_lens.demo.job import SAVED, DemoOptions, demo_recipe
from bae_lens.demo.steering import activations_where_on, describe_steering, steer_strongest
from bae_lens.training.recipes import RECIPES, get_recipe

SMALL = ["--steps", "40", "--tokens", "6000", "--expansion", "1"]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    from bae_lens.demo.corpus import python_docs

    path = tmp_path_factory.mktemp("text") / "docs.txt"
    path.write_text("\n".join(" ".join(d.split())[:1500] for d in python_docs().train[:60]), encoding="utf-8")
    return path


def numbers(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_the_main_job_shows_compares_and_saves_everything(text_file, tmp_path, capsys):
    options = ["--model", str(demo_model_dir()), "--text", str(text_file), "--hook", HOOK]
    arguments = ["demo", *options, "--out", str(tmp_path / "run"), "--json", str(tmp_path / "out.json"), *SMALL]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for part in (
        "FVU",
        "bits a token",
        "zero-ablated",
        "mean-ablated",
        "recovered",
        "next token, after",
        "TopK, k =",
        "Standard",
    ):
        assert part in printed
    results = json.loads((tmp_path / "out.json").read_text())
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["name"].split(",")[0] for row in results["rows"]] == ["BAE", "TopK", "Standard"]
    assert len(results["features"]) == 5
    assert all(map(math.isfinite, numbers(results)))
    assert set(SAVED) == {p.name for p in (tmp_path / "run").iterdir()}
    assert f"Open in a browser: {(tmp_path / 'run' / 'report.html').as_uri()}" in printed
    assert 'id="data"' in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "run"]

    bae = SAE.load_from_disk(tmp_path / "run" / "bae")
    assert isinstance(bae, bae_lens.BAE)
    assert bae.cfg.metadata.hook_name == HOOK
    model = bae_lens.load_model(bae.cfg.metadata.model_name)
    with torch.no_grad(), bae_lens.attach(model, bae):
        model("Return the list.")

    exported = ["export", "--bae", str(tmp_path / "run" / "bae"), *options[:4], "--out", str(tmp_path / "jumprelu")]
    assert main(exported) == 0
    assert "reconstructions differ by" in capsys.readouterr().out
    assert SAE.load_from_disk(tmp_path / "jumprelu").cfg.architecture() == "jumprelu"
    shutil.rmtree(tmp_path / "jumprelu")

    assert main(arguments) == 2
    assert "already holds something" in capsys.readouterr().err
    assert main([*arguments, "--replace"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "run"]


def test_the_main_job_learns_refined_nested_codes_and_shows_splices_steers_and_compares_them(text_file, tmp_path, capsys):
    short = tmp_path / "short.txt"
    short.write_text("\n".join(text_file.read_text(encoding="utf-8").splitlines()[:12]), encoding="utf-8")
    options = ["--model", str(demo_model_dir()), "--text", str(short), "--hook", HOOK, "--recipe", "rate_distortion"]
    assert main(["demo", *options, "--out", str(tmp_path / "run"), *SMALL]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"bits a token \(marginal entropy of which features are on\).* of 128 features", printed)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["recipe"], results["entropy_weight"], results["refine_weight"]) == ("rate_distortion", None, 0.2)
    assert all(map(math.isfinite, numbers(results)))
    assert [row["name"].split(",")[0] for row in results["rows"]] == ["BAE", "TopK", "Standard"]
    length = results["rows"][0]["code_length"]
    assert length["bits"] == pytest.approx(length["which"] + length["magnitudes"])
    assert length["magnitudes"] > 0

    bae = SAE.load_from_disk(tmp_path / "run" / "bae")
    assert isinstance(bae, bae_lens.BAE)
    assert bae.is_nested
    assert bae.cfg.refine_weight > 0
    assert len(results["features"]) == 5
    steered = results["steering"]
    assert steered["feature"] in [found["feature"] for found in results["features"]]
    assert 4 / 12 <= steered["strength"] < 4  # of 12 levels; where a feature is on, it is seldom at the last
    assert steered["before"] != steered["after"]
    on = [any(reading["activation"] > 0 for reading in token["readings"]) for token in results["inspection"]["tokens"]]
    assert sum(on) > len(on) / 2
    model = bae_lens.load_model(bae.cfg.metadata.model_name)
    with torch.no_grad(), bae_lens.attach(model, bae):
        assert torch.isfinite(model("Return the list.")).all()


def test_the_help_lists_every_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    listed = re.search(r"--recipe RECIPE\s(.*?)--entropy-weight", capsys.readouterr().out, re.DOTALL)
    assert listed is not None
    assert set(RECIPES) <= set(re.findall(r"\w+", listed[1]))


def test_the_embedded_default_sets_the_entropy_weight_of_its_own_recipe_alone(model):
    for name in RECIPES:
        recipe = demo_recipe(model, DemoOptions(recipe=name), HOOK)
        own = get_recipe(name)(128, 4, steps=3000)
        changes = {"entropy_weight": 0.2} if name == "recommended" else {}
        assert recipe == own._replace(sae=dataclasses.replace(own.sae, **changes))


def test_a_feature_is_steered_with_four_times_what_it_is_where_it_is_on(model, make_bae, vectors):
    bae = make_bae(5, code="nested")
    bae.estimate_prior(vectors)
    features = bae.encode(vectors).tolist()
    found = activations_where_on(bae, vectors, [3, 11])
    for feature in (3, 11):
        on = [row[feature] for row in features if row[feature] > 0]
        assert found[feature] == pytest.approx(sum(on) / len(on))
    steered = steer_strongest(model, bae, torch.tensor([[0, 5, 9]]), found)
    assert steered is not None
    assert steered.strength == pytest.approx(4 * found[steered.feature])
    assert f"feature {steered.feature}, {steered.strength:.3g} decoder rows" in describe_steering(steered)
    with torch.no_grad(), bae_lens.steer(model, bae, {steered.feature: steered.strength}):
        after = model(torch.tensor([[0, 5, 9]]))[0, -1].softmax(-1).topk(5).values
    assert [p for _, p in steered.after] == pytest.approx(after.tolist(), rel=1e-4)


def test_ctrl_c_leaves_no_file_and_keeps_the_earlier_run(text_file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("earlier")
    command = [sys.executable, "-m", "bae_lens", "demo", "--model", str(demo_model_dir()), "--text", str(text_file)]
    command += ["--out", str(tmp_path / "run"), "--replace", "--json", str(tmp_path / "out.json"), "--steps", "1000000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Train a Binary" in line:
            break
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["run", "run/results.json"]
    assert (tmp_path / "run" / "results.json").read_text() == "earlier"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "{tmp}/missing"], "give --text"),
        (["--model", "{tmp}/missing", "--text", "{text}"], "no directory"),
        (["--model", "{tmp}", "--text", "{text}"], "holds no model"),
        (["--model", "{model}", "--text", "{tmp}/missing.txt"], "missing.txt"),
        (["--model", "{model}", "--text", "{tmp}/empty.txt"], "holds no text"),
        (["--model", "{model}", "--text", "{text}", "--hook", "blocks.1.hook_resid_pra"], "did you mean"),
        (["--model", "{model}", "--text", "{text}", "--recipe", "recomended"], "did you mean"),
        (
            ["--model", "{model}", "--text", "{text}", "--recipe", "rate_distortion", "--entropy-weight", "0.1", *SMALL],
            "'rate_distortion' has no entropy weight: leave --entropy-weight away",
        ),
        (["--model", "{model}", "--text", "{text}", "--steps", "-3"], "steps must be positive"),
        (["--model", "{model}", "--text", "{text}", "--json", "/sys/x.json"], "cannot write"),
        (["--model", "{model}", "--text", "{text}", "--out", "/sys/run"], "cannot write"),
    ],
)
def test_wrong_input_ends_with_one_line_that_says_what_to_do(arguments, message, tmp_path, text_file, capsys):
    (tmp_path / "empty.txt").write_text("\n")
    filled = [a.format(tmp=tmp_path, text=text_file, model=demo_model_dir()) for a in arguments]
    assert main(["demo", "--out", str(tmp_path / "run"), *filled]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_the_command_alone_shows_what_to_do_next(capsys):
    assert main([]) == 0
    assert "bae-lens demo" in capsys.readouterr().out
