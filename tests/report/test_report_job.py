import json
import re

import numpy as np
import pytest
import torch
from embedded import HOOK
from test_assemble import unpacked

import bae_lens
from bae_lens.analyze.statistics import code_statistics
from bae_lens.cli import main
from bae_lens.demo import demo_model_dir
from bae_lens.report.codes import read_codes
from bae_lens.report.collect import Shown, collect, features_to_show
from bae_lens.report.directions import map_rows, nearest_rows, promoted


def content_of(path):
    return unpacked(re.search(r'id="data">([^<]*)</script>', path.read_text(encoding="utf-8"))[1])


@pytest.fixture(scope="module")
def text_file(tmp_path_factory, documents):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(d.replace("\u0000", "") for d in documents * 3), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def activations(tmp_path_factory, text_file):
    out = tmp_path_factory.mktemp("acts") / "acts"
    assert (
        main(["harvest", "--text", str(text_file), "--model", str(demo_model_dir()), "--hooks", HOOK, "--out", str(out)]) == 0
    )
    return out


@pytest.fixture
def saved_bae(tmp_path, make_ready):
    bae, _ = make_ready()
    bae.cfg.metadata.model_name = str(demo_model_dir())
    return bae_lens.save(bae, tmp_path / "bae")


def test_a_report_of_activations_on_disk_is_of_the_documents_that_training_leaves_out(tmp_path, saved_bae, activations, capsys):
    assert main(["report", "--bae", str(saved_bae), "--activations", str(activations), "--out", str(tmp_path / "r.html")]) == 0
    printed = capsys.readouterr().out
    assert "bits a token" in printed
    assert f"Open {(tmp_path / 'r.html').as_uri()}" in printed
    values, arrays = content_of(tmp_path / "r.html")
    held_out = bae_lens.ActivationDataset(activations).split(0.15, seed=0).held_out
    stats = code_statistics(bae_lens.load(saved_bae), held_out)
    found = values["overview"]
    assert found["tokens"] == len(held_out)
    assert found["fvu"] == pytest.approx(stats.fvu, rel=1e-4)
    assert found["entropy"] == pytest.approx(stats.entropy, rel=1e-4)
    assert found["l0"] == pytest.approx(stats.l0, rel=1e-4)
    assert (found["live"], found["dead"], found["dense"]) == (stats.live, stats.dead, stats.dense)
    assert found["ce"]["clean"] < found["ce"]["zero_ablated"]
    assert arrays["frequency"].tolist() == pytest.approx(stats.frequency.tolist(), abs=1e-6)
    assert arrays["index"].tolist() == list(range(48))
    assert values["recipe"] is None
    assert len(arrays["up"]) == 48


def test_without_the_model_what_needs_it_is_left_out_and_said_to_be(tmp_path, saved_bae, activations):
    more = ["--without-model", "--held-out", "0", "--features", "3,7", "--map", "none", "--out", str(tmp_path / "r.html")]
    assert main(["report", "--bae", str(saved_bae), "--activations", str(activations), *more]) == 0
    values, arrays = content_of(tmp_path / "r.html")
    assert values["overview"]["ce"] is None
    assert "left away" in values["withoutCe"]
    assert not {"up", "down", "map"} & set(arrays)
    assert arrays["index"].tolist() == [3, 7]
    assert len(arrays["allFrequency"]) == 48
    assert values["overview"]["tokens"] == len(bae_lens.ActivationDataset(activations))


def test_of_activations_at_a_few_positions_the_page_says_that_there_is_no_text_around_them(tmp_path, saved_bae, text_file):
    options = ["--text", str(text_file), "--model", str(demo_model_dir()), "--hooks", HOOK, "--positions", "1,4,9"]
    assert main(["harvest", *options, "--out", str(tmp_path / "acts")]) == 0
    options = ["--activations", str(tmp_path / "acts"), "--held-out", "0", "--out", str(tmp_path / "r.html")]
    assert main(["report", "--bae", str(saved_bae), *options]) == 0
    values, arrays = content_of(tmp_path / "r.html")
    assert values["isAlone"]
    assert not values["isScaled"]
    assert "give a text to measure CE losses on" in values["withoutCe"]
    assert set(arrays["position"].tolist()) <= {1, 4, 9}
    assert len(arrays["up"]) == 48


def test_any_sae_is_reported_on_a_text_with_the_bits_of_its_magnitudes(tmp_path, make_sae, text_file, capsys):
    make_sae().save_model(tmp_path / "sae")
    options = [
        "--model",
        str(demo_model_dir()),
        "--text",
        str(text_file),
        "--tokens",
        "2500",
        "--out",
        str(tmp_path / "r.html"),
    ]
    assert main(["report", "--bae", str(tmp_path / "sae"), *options]) == 0
    values, arrays = content_of(tmp_path / "r.html")
    assert values["kind"] == "sae"
    assert values["architecture"] == "standard"
    assert values["overview"]["bits"] > values["overview"]["magnitudes"] > 0
    assert np.isnan(arrays["prior"]).all()
    assert arrays["histogram"].shape == (40, 16)


def test_the_same_report_twice_is_the_same_file(tmp_path, saved_bae, activations):
    for name in ("one", "two"):
        options = ["--activations", str(activations), "--without-model", "--out", str(tmp_path / name)]
        assert main(["report", "--bae", str(saved_bae), *options]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bae", "{tmp}/none"], "is no directory, and no release"),
        (["--bae", "{bae}", "--activations", "{tmp}/none"], "none"),
        (
            ["--bae", "{bae}", "--activations", "{plain}", "--model", "{model}"],
            "give --text (and --model) instead of --activations",
        ),
        (["--bae", "{bae}", "--activations", "{plain}"], "does not say which model its activations are of"),
        (["--bae", "{bae}", "--activations", "{acts}", "--held-out", "1"], "--held-out must be"),
        (["--bae", "{bae}", "--activations", "{acts}", "--tokens", "0"], "--tokens must be at least 2"),
        (["--bae", "{bae}", "--activations", "{acts}", "--features", "3,48", "--without-model"], "features 0 to 47"),
        (["--bae", "{bae}", "--activations", "{acts}", "--features", "few"], "--features takes a number, or features"),
        (["--bae", "{bae}", "--activations", "{acts}", "--map", "tsne"], "unknown map"),
        (["--bae", "{bae}", "--activations", "{acts}", "--comsem", "{tmp}"], "holds no features.jsonl"),
        (["--bae", "{bae}", "--activations", "{acts}", "--out", "/sys/report.html"], "cannot write"),
        (["--bae", "{bae}", "--text", "{tmp}/none.txt"], "none.txt: --text takes a text file, a document a line"),
        (["--bae", "{bae}", "--activations", "{acts}", "--device", "tpu"], "no such device: 'tpu'; give cpu, cuda or"),
        (["--bae", "{bae}", "--without-model"], "--without-model needs --activations"),
        (["--bae", "{bae}", "--model", "{tmp}"], "give --activations"),
        (["--bae", "{wide}", "--activations", "{acts}"], "width 128; this SAE's d_in is 64"),
        (["--bae", "{other}", "--activations", "{acts}"], "holds no activations of 'blocks.2.hook_resid_pre'"),
        (["--bae", "{fresh}", "--activations", "{acts}"], "no prior yet"),
    ],
)
def test_wrong_input_ends_with_one_line_that_says_what_to_do(
    arguments, message, tmp_path, saved_bae, activations, make_bae, vectors, capsys
):
    bae_lens.save_activations(tmp_path / "plain", [vectors], metadata={"hook_name": HOOK})
    for name, bae in {
        "wide": make_bae(d_in=64),
        "other": make_bae(hook_name="blocks.2.hook_resid_pre"),
        "fresh": make_bae(),
    }.items():
        if name != "fresh":
            bae.estimate_prior(torch.randn(50, bae.cfg.d_in))
        bae_lens.save(bae, tmp_path / name)
    known = {"tmp": tmp_path, "bae": saved_bae, "acts": activations, "model": demo_model_dir(), "plain": tmp_path / "plain"}
    known |= {name: tmp_path / name for name in ("wide", "other", "fresh")}
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "r.html")]
    capsys.readouterr()
    assert main(["report", *(a.format(**known) for a in arguments), *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "r.html").exists()


def test_so_many_features_are_taken_evenly_from_the_rarest_to_the_most_frequent(make_ready):
    bae, source = make_ready()
    arrays = collect(bae, source._replace(model=None, windows=None), Shown(features=5), progress=False).arrays
    on = arrays["allFrequency"]
    ranked = np.argsort(on[(on > 0) & (on < 1)], kind="stable")
    live = np.flatnonzero((on > 0) & (on < 1))[ranked]
    assert arrays["index"].tolist() == sorted(live[[int((i + 0.5) / 5 * len(live)) for i in range(5)]].tolist())
    for name in ("context", "strength", "topToken", "partner", "near", "frequency"):
        assert len(arrays[name]) == 5
    with pytest.raises(ValueError, match="at least one feature"):
        features_to_show(read_codes(bae, source.vectors, progress=False), on > 0, 0)


def test_promoted_tokens_are_those_of_the_largest_and_smallest_direct_logits(model, make_ready):
    bae, _ = make_ready()
    found = promoted(model, bae, None, count=3, progress=False)
    for feature in (0, 20):
        logits = (bae.W_dec[feature] * model.ln_final.w) @ model.W_U
        logits = (logits - logits.mean()).detach()
        assert found.up[feature].tolist() == logits.topk(3).indices.tolist()
        assert found.down_by[feature].tolist() == pytest.approx(logits.topk(3, largest=False).values.tolist(), rel=1e-3)
    bae.cfg.metadata.hook_name = "blocks.1.attn.hook_z"
    assert "direct logits are of SAEs in the residual stream" in promoted(model, bae, None)


def test_the_nearest_rows_are_those_of_the_largest_cosine_among_live_features():
    rows = torch.tensor([[1.0, 0], [2, 0.1], [0, 1], [1, 1], [3, 0]])
    found = nearest_rows(rows, np.array([True, True, True, True, False]), count=2)
    assert found.feature[0].tolist() == [1, 3]
    assert found.cosine[0].tolist() == pytest.approx([2 / np.hypot(2, 0.1), np.sqrt(0.5)], abs=1e-5)
    assert found.feature[4].tolist() == [0, 1]
    assert nearest_rows(rows, np.array([True, False, False, False, False])).feature[0].tolist() == [-1]


def test_the_map_keeps_the_two_directions_of_most_variance_and_leaves_dead_features_out():
    angles = torch.tensor([0.1, 0.5, 1.4, 2.0, 3.0])
    rows = torch.stack([angles.cos(), angles.sin(), torch.zeros(5)], 1) * torch.tensor([1.0, 3, 1, 2, 1]).unsqueeze(1)
    live = np.array([True, True, True, True, False])
    places = map_rows(rows, live)
    assert np.isnan(places[4]).all()
    assert np.nanmin(places) == 0
    assert np.nanmax(places) == 1
    unit = rows[:4] / rows[:4].norm(dim=1, keepdim=True)
    first = torch.linalg.svd(unit - unit.mean(0)).S
    spread = np.linalg.norm(places[:4] - places[:4].mean(0), axis=0)
    assert (spread > 0).all()
    assert first[2] < 1e-5
    assert map_rows(rows, live, "none") is None
    assert map_rows(rows, np.array([True, True, False, False, False])) is None


def test_results_of_other_jobs_and_the_run_come_into_the_page(tmp_path, saved_bae, activations):
    (tmp_path / "comsem").mkdir()
    row = {"feature": 3, "status": "scored", "reason": None, "phrase": "<b>words</b>", "score": 1.0, "interval": [0.7, 1.0]}
    (tmp_path / "comsem" / "features.jsonl").write_text(json.dumps(row) + "\n")
    (saved_bae / "recipe.json").write_text(json.dumps({"recipe": {"trainer": {"steps": 10}}}))
    (saved_bae / "metrics.jsonl").write_text(json.dumps({"split": "train", "step": 0, "fvu": 0.5}) + "\n")
    options = ["--activations", str(activations), "--without-model", "--comsem", str(tmp_path / "comsem")]
    assert main(["report", "--bae", str(saved_bae), *options, "--out", str(tmp_path / "r.html")]) == 0
    values, _ = content_of(tmp_path / "r.html")
    assert values["comsem"]["3"]["phrase"] == "<b>words</b>"
    assert values["recipe"] == {"trainer": {"steps": 10}}
    assert values["curves"]["train"] == {"step": [0], "fvu": [0.5]}
    assert "<b>words" not in (tmp_path / "r.html").read_text(encoding="utf-8")
