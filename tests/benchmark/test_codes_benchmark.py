"""The benchmark of real-activation codes at a tiny size: its rows, its command, reruns by name, tables and picture."""

import csv
import io
import json
import math
from pydoc_data.topics import topics

import pytest
import torch

import bae_lens
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.fidelity import ablation_baseline, fidelity
from bae_lens.analyze.rate_distortion_bounds import gaussian_rate, pca_length, principal_axes
from bae_lens.analyze.statistics import code_statistics
from bae_lens.benchmark.codes_figures import STYLES
from bae_lens.benchmark.codes_kinds import KINDS
from bae_lens.benchmark.codes_measure import Measured
from bae_lens.benchmark.codes_rows import CodesOptions, Row, RowResult
from bae_lens.benchmark.codes_table import OUTSIDE, at_table, bits_at, points_table, reached
from bae_lens.cli import main
from bae_lens.compare.baselines import jumprelu, sae_trainer, topk, train_baseline
from bae_lens.compare.refined_baseline import fit_refined, refined_length
from bae_lens.demo import demo_model_dir
from bae_lens.training.recipes import rate_distortion

HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "docs.txt"
    path.write_text("\n".join(" ".join(text.split())[:800] for text in list(topics.values())[:24]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def command(text_file):
    """A benchmark of seconds: everything but --out."""
    tiny = ["--tokens", "2000", "--steps", "12", "--expansions", "0.5", "--seeds", "0", "--hooks", HOOK]
    return ["bench-codes", "--model", str(demo_model_dir()), "--text", str(text_file), *tiny]


def figures(run):
    """The measured figures of every row of a directory."""
    return {row["name"]: row["measured"] for row in json.loads((run / "results.json").read_text())["rows"]}


@pytest.fixture(scope="module")
def every_kind(command, tmp_path_factory):
    """The directory of a run of all kinds."""
    run = tmp_path_factory.mktemp("run") / "codes"
    assert main([*command, "--out", str(run)]) == 0
    return run


def test_every_trained_kind_is_tried_as_often_as_any_other_and_has_a_style_and_names_of_its_own():
    assert {len(kind.points) for kind in KINDS.values() if kind.is_trained} == {4}
    assert STYLES.keys() == KINDS.keys()
    assert len(set(STYLES.values())) == len(KINDS)
    for kind in KINDS.values():
        assert len({point.name for point in kind.points}) == len(kind.points)
        assert all(point.name for point in kind.points)


def test_the_help_names_every_kind(capsys):
    with pytest.raises(SystemExit):
        main(["bench-codes", "--help"])
    assert " ".join(KINDS) in " ".join(capsys.readouterr().out.split())


def test_every_rows_name_leads_back_to_it(tmp_path):
    rows = CodesOptions(out=tmp_path, expansions=[4, 0.5, 16]).rows()
    names = [row.name for row in rows]
    untrained = sum(len(kind.points) for kind in KINDS.values() if not kind.is_trained)
    assert len(set(names)) == len(names) == 2 * (untrained + 9 * 4 * 3 * 3)
    assert [Row.parse(name) for name in names] == rows
    assert "blocks.1.hook_resid_pre/x0.5/nested/0.17-k3/seed2" in names
    assert "blocks.1.hook_resid_post/pca/1.2" in names


def test_every_kind_has_a_row_a_point_with_its_figures(every_kind):
    rows = list(csv.DictReader(io.StringIO((every_kind / "results.csv").read_text())))
    assert len(rows) == sum(len(kind.points) for kind in KINDS.values())
    for row in rows:
        trained = KINDS[row["kind"]].is_trained
        assert float(row["bits"]) > 0
        assert float(row["fvu"]) > 0
        assert bool(row["l0"]) == bool(row["ce_from_zero"]) == bool(row["expansion"]) == bool(row["seed"]) == trained
        if trained:
            assert float(row["bits"]) == pytest.approx(float(row["which"]) + float(row["magnitudes"]))
            assert int(row["live"]) + int(row["dead"]) == 64
        assert bool(float(row["magnitudes"] or 0)) == (trained and row["kind"] not in ("binary", "entropy"))
        assert (every_kind / "cells" / f"{row['name']}.json").is_file()
    assert all(float(row["l0"]) <= int(row["k"]) + 1e-9 for row in rows if row["kind"] == "topk")
    table = (every_kind / "table.md").read_text()
    assert table.count(f"\n| {HOOK}") == len(rows) + len(KINDS)
    assert not list(every_kind.rglob(".*"))


def test_a_rows_figures_are_those_of_the_public_functions_on_held_out_documents(every_kind, model, text_file):
    split = bae_lens.split_documents(bae_lens.read_documents(text_file))
    windows = [bae_lens.tokenize(model.tokenizer, documents, 256) for documents in split]
    train, held_out = (bae_lens.harvest(model, w, HOOK, max_tokens=2000).vectors for w in windows)
    losses = ablation_baseline(model, windows[1], HOOK, train.mean(0))
    trainer = sae_trainer(steps=12, seed=0, device="cpu")
    codes = {
        "topk/k5": train_baseline(topk(5), train, 64, trainer),
        "jumprelu/0.6": train_baseline(jumprelu(0.6), train, 64, trainer),
        "nested/0.17-k3": bae_lens.train(train, rate_distortion(128, 0.5, levels=12, weight=0.17, k=3, steps=12)).bae,
        "binary/0.09-k5": bae_lens.train(train, rate_distortion(128, 0.5, levels=1, weight=0.09, k=5, steps=12)).bae,
    }
    for name, code in codes.items():
        length, stats = code_length(code, train, held_out), code_statistics(code, held_out)
        ce = fidelity(model, code, windows[1], losses, hook_name=HOOK)
        expected = {**length._asdict(), "ce_from_zero": ce.recovered_from_zero, "ce_from_mean": ce.recovered_from_mean}
        expected |= {name: getattr(stats, name) for name in ("l0", "live", "dead", "dense")}
        expected.pop("cosine")
        assert figures(every_kind)[f"{HOOK}/x0.5/{name}/seed0"] == pytest.approx(expected, rel=1e-5)
    sae = train_baseline(topk(12), train, 64, trainer)
    variance = (train - train.mean(0)).pow(2).sum(1).mean().item()
    refined = refined_length(fit_refined(sae, train, 0.1 * variance / 128), held_out).length
    assert figures(every_kind)[f"{HOOK}/x0.5/topk_refined/0.1-k12/seed0"]["bits"] == pytest.approx(refined.bits, rel=1e-2)
    axes = principal_axes(train)
    assert figures(every_kind)[f"{HOOK}/pca/1.2"]["bits"] == pca_length(axes, train, held_out, 1.2).bits
    assert figures(every_kind)[f"{HOOK}/gaussian/0.1"]["bits"] == gaussian_rate(axes.variances, 0.1)


def test_the_picture_shows_every_kind_in_its_colour(every_kind):
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    pixels = torch.from_numpy(imread(every_kind / "curves.png")[..., :3].copy())
    assert min(pixels.shape[:2]) > 300
    for color, _ in STYLES.values():
        assert int(((pixels - torch.tensor(to_rgb(color))).abs().amax(-1) < 0.02).sum()) > 20


def test_a_second_run_makes_only_what_is_missing_and_the_same_again(every_kind, command, capsys):
    before = figures(every_kind)
    cells = sorted((every_kind / "cells").rglob("*.json"))
    removed = [cell for cell in cells if cell.parent.name in ("k5", "0.2-k5", "0.17-k3") or cell.stem == "1.2"]
    assert len(removed) == 5, "of topk, batchtopk, topk_refined, nested and pca"
    for cell in removed:
        cell.unlink()
    written = {cell: cell.stat().st_mtime_ns for cell in cells if cell not in removed}
    assert main([*command, "--out", str(every_kind)]) == 0
    assert f"{len(written)} of {len(cells)} rows are there already" in capsys.readouterr().out
    assert {cell: cell.stat().st_mtime_ns for cell in written} == written
    assert figures(every_kind) == before


@pytest.mark.parametrize("kind", ["topk_refined", "jumprelu", "nested", "pca"])
def test_a_row_is_rerun_by_its_name_to_the_same_figures(kind, every_kind, command, tmp_path, capsys):
    name = next(name for name in figures(every_kind) if f"/{kind}/" in name)
    elsewhere = [*command[: command.index("--expansions")], "--row", name]
    assert main([*elsewhere, "--out", str(tmp_path / "new"), "--json", str(tmp_path / "row.json")]) == 0
    (row,) = json.loads((tmp_path / "row.json").read_text())["rows"]
    assert row["measured"] == figures(every_kind)[name]
    made = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*.*") if path.is_file()}
    assert made == {"benchmark.json", f"cells/{name}.json"}
    capsys.readouterr()
    cell = every_kind / "cells" / f"{name}.json"
    written = cell.read_text()
    assert main([*elsewhere, "--out", str(every_kind)]) == 0
    printed = capsys.readouterr().out
    assert f"{name}: " in printed
    assert f"exactly as in {every_kind}" in printed
    value = json.loads(written)
    value["measured"]["bits"] += 1
    cell.write_text(json.dumps(value))
    assert main([*elsewhere, "--out", str(every_kind)]) == 0
    assert f"not as in {every_kind}: bits was" in capsys.readouterr().out
    assert json.loads(cell.read_text()) == value
    cell.write_text(written)


def test_longer_lists_add_rows_of_other_hook_points_widths_and_seeds(command, tmp_path):
    few = [*command, "--out", str(tmp_path / "run"), "--kinds", "topk", "pca"]
    assert main([*few, "--expansions", "0.5", "1"]) == 0
    assert main([*few, "--seeds", "1"]) == 0
    assert main([*few, "--hooks", "blocks.1.attn.hook_z"]) == 0
    found = figures(tmp_path / "run")
    pca, topk = len(KINDS["pca"].points), len(KINDS["topk"].points)
    assert len(found) == pca + 3 * topk + pca + topk
    assert len({value["bits"] for value in found.values()}) == len(found)
    assert [0 < value["ce_from_zero"] <= 1.01 for name, value in found.items() if "hook_z/x0.5/topk/k28" in name] == [True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds"], "the list of seeds is empty"),
        (["--kinds"], "the list of kinds is empty"),
        (["--hooks"], "the list of hooks is empty"),
        (["--expansions"], "the list of expansions is empty"),
        (["--at"], "the list of at is empty"),
        (["--kinds", "topk", "nestd"], "unknown kind of code 'nestd'; did you mean 'nested'?"),
        (["--hooks", "blocks.1.hook_resid_pos"], "did you mean 'blocks.1.hook_resid_post'"),
        (["--hooks", "blocks.9.hook_resid_pre"], "this model has no hook point 'blocks.9.hook_resid_pre'"),
        (["--at", "0.1", "1"], "FVUs over 0 and under 1, got 1.0"),
        (["--at", "nan"], "FVUs over 0 and under 1, got nan"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--tokens", "0"], "tokens must be at least 1, got 0"),
        (["--seeds", "-1"], "seed must be a whole number of at least 0"),
        (["--expansions", "0.001"], "leaves no feature"),
        (["--expansions", "0.001", "--kinds", "standard"], "at least one feature"),
        (
            ["--expansions", "0.1", "--kinds", "topk"],
            "x0.1/topk/k28/seed0 cannot be trained: k of topk must be from 1 to d_sae",
        ),
        (["--row", "blocks.1.hook_resid_pre/x4/nestd/0.17-k3/seed0"], "did you mean 'nested'"),
        (
            ["--row", "blocks.1.hook_resid_pre/x4/nested/0.17-k5/seed0"],
            "unknown point of nested '0.17-k5'; did you mean '0.17-k3'",
        ),
        (["--row", "blocks.1.hook_resid_pre/nested/0.17-k3"], "no row of nested is named"),
        (["--row", "blocks.1.hook_resid_pre/x4/pca/1.2/seed0"], "no row of pca is named"),
        (["--row", "nested"], "names are HOOK/xEXPANSION/KIND/POINT/seedSEED"),
        (["--row", "../x4/nested/0.17-k3/seed0/.."], "no row is named"),
        (["--row", "blocks.9.hook_resid_pre/pca/1.2"], "no hook point 'blocks.9.hook_resid_pre'"),
        (["--text", "no.txt"], "no.txt"),
        (["--out", "/sys/run"], "cannot write"),
        (["--json", "/sys"], "/sys is a directory"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_written(arguments, message, command, tmp_path, capsys):
    assert main([*command, "--out", str(tmp_path / "run"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_embedded_text_is_not_taken_for_another_model(tmp_path, capsys):
    assert main(["bench-codes", "--model", str(demo_model_dir()), "--out", str(tmp_path / "run")]) == 2
    assert "give --text with --model" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["topk", "pca", "nested"])
def test_activations_without_variance_are_refused(kind, command, tmp_path, capsys):
    """A text of one token, embedded: every vector is the same."""
    text = tmp_path / "same.txt"
    text.write_text("\n".join(["#" * 700] * 10))
    arguments = ["--text", str(text), "--hooks", "blocks.0.hook_resid_pre", "--kinds", kind, "--out", str(tmp_path / "run")]
    assert main([*command, *arguments]) == 2
    error = capsys.readouterr().err
    assert "training activations at blocks.0.hook_resid_pre cannot be coded" in error
    assert "are all equal" in error


def test_too_few_tokens_for_a_batch_are_refused(command, tmp_path, capsys):
    assert main([*command, "--tokens", "20", "--kinds", "topk", "--out", str(tmp_path / "run")]) == 2
    assert "fewer than one batch of 512: give more text or --tokens" in capsys.readouterr().err


def test_directories_of_another_benchmark_text_model_or_length_are_refused_with_what_differs(
    command, text_file, tmp_path, capsys
):
    run = [*command, "--kinds", "gaussian", "--out", str(tmp_path / "run")]
    assert main(run) == 0
    other = tmp_path / "docs.txt"
    other.write_text(text_file.read_text() + "\nAnother document, of its own.")
    assert main([*run, "--steps", "50", "--tokens", "1500", "--text", str(other)]) == 2
    error = capsys.readouterr().err
    for part in (
        "settings.steps was 12 and is 50",
        "settings.tokens was 2000 and is 1500",
        "settings.text was 'docs.txt, content",
    ):
        assert part in error
    assert "settings.model" not in error
    manifest = tmp_path / "run" / "benchmark.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "benchmark": "synthetic"}))
    assert main(run) == 2
    assert "benchmark was 'synthetic' and is 'codes'" in capsys.readouterr().err
    manifest.unlink()
    assert main(run) == 2
    assert "already holds something" in capsys.readouterr().err


def test_another_models_weights_are_told_apart(models, make_bae):
    from bae_lens.benchmark.codes import _weights_hash

    one, other = torch.nn.Linear(300, 5), torch.nn.Linear(300, 5)
    other.load_state_dict(one.state_dict())
    assert _weights_hash(one) == _weights_hash(other)
    other.bias.data[0] += 1e-3
    assert _weights_hash(one) != _weights_hash(other)


def test_rows_of_other_settings_and_rows_that_are_not_whole_are_named(command, tmp_path, capsys):
    run = [*command, "--kinds", "topk", "--out", str(tmp_path / "run")]
    assert main(run) == 0
    cell = tmp_path / "run" / "cells" / HOOK / "x0.5" / "topk" / "k5" / "seed0.json"
    value = json.loads(cell.read_text())
    changed = json.loads(cell.read_text())
    changed["settings"]["trainer"]["learning_rate"] = 0.1
    cell.write_text(json.dumps(changed))
    assert main(run) == 2
    assert "other settings: trainer.learning_rate was 0.1 and is 0.005" in capsys.readouterr().err
    del value["measured"]["bits"]
    cell.write_text(json.dumps(value))
    assert main(run) == 2
    assert "seed0.json is no whole row: remove it" in capsys.readouterr().err
    cell.write_text(cell.read_text()[:-40])
    assert main(run) == 2
    assert "seed0.json is not whole: remove it" in capsys.readouterr().err


def result(kind, point, seed, fvu, bits):
    place = (4.0, seed) if KINDS[kind].is_trained else (None, None)
    row = Row(HOOK, place[0], kind, KINDS[kind].points[point], place[1])
    return RowResult(row, Measured(fvu, bits), 1.0, {})


def test_bits_at_an_fvu_are_on_the_line_between_neighbours_in_log_bits_and_log_fvu():
    curve = [result("topk", i, 0, fvu, bits) for i, (fvu, bits) in enumerate([(0.2, 10), (0.05, 160), (0.1, 40)])]
    assert bits_at(curve, 0.1) == pytest.approx(40)
    assert bits_at(curve, 0.05) == pytest.approx(160)
    assert bits_at(curve, math.sqrt(0.05 * 0.1)) == pytest.approx(80)
    assert bits_at(curve, 0.1 * 2**0.25) == pytest.approx(40 / 4**0.25)
    assert bits_at(curve, 0.049) is None
    assert bits_at(curve, 0.21) is None
    assert bits_at(curve[:1], 0.2) is None


def test_the_tables_show_mean_and_range_and_what_is_outside():
    rows = [
        result("topk", point, seed, fvu, scale * bits)
        for seed, scale in ((0, 1.0), (1, 1.2))
        for point, (fvu, bits) in enumerate([(0.05, 100), (0.2, 20)])
    ]
    rows += [result("topk", 0, 2, 0.12, 50), result("topk", 1, 2, 0.3, 10), result("gaussian", 0, None, 0.05, 200)]
    at = at_table(rows, [0.1, 0.2, 0.9]).splitlines()
    assert "bits at FVU 0.1 " in at[0]
    assert "49.2 [44.7, 53.7], 2 of 3 seeds" in at[2]
    assert "21.5 [20.0, 24.0]" in at[2]  # the third seed's is 50 * 0.2 ** (log(0.2 / 0.12) / log(0.3 / 0.12)) = 20.4
    assert at[2].count(OUTSIDE) == 1
    assert at[3].count(OUTSIDE) == 3
    points = points_table(rows).splitlines()
    assert "| k28" in points[2]
    assert "90.0 [50.0, 120.0]" in points[2]
    assert "0.0733 [0.0500, 0.1200]" in points[2]
    assert [item.bits for item in reached(rows, [0.9])] == [[None, None, None], [None]]
