import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from bae_lens.cli import main
from bae_lens.pictures.charts import Chart
from bae_lens.report.figures import paper, results
from bae_lens.report.figures.entries import ENTRIES
from bae_lens.report.figures.gallery import draw_figures
from bae_lens.report.figures.results import find_results
from bae_lens.report.figures.tables import Table, table_4

MAPPED = ("Fig. 42", "Fig. 43")
"""Need maps, which the mini run has none of."""


def found(mini, kind):
    return next(one for one in find_results(mini) if one.kind == kind)


def by_kind(mini):
    every = find_results(mini)
    return {kind: [one for one in every if one.kind == kind] for kind in results.KINDS}


def points_of(chart):
    return [point for panel in chart.panels for line in panel.lines if line.look != "guide" for point in line.points]


def test_results_are_found_by_their_manifests_and_nothing_is_looked_for_inside_a_job(mini):
    names = {one.kind: one.name for one in find_results(mini)}
    assert set(names) == set(results.KINDS) - {"compare existing"}
    assert names["compare"] == "compare/layer1"
    assert not [one for one in find_results(mini) if set(Path(one.name).parts) & {"cells", "saes", "activations", "figures"}]


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.label not in MAPPED], ids=lambda entry: entry.label)
def test_each_figure_and_table_comes_of_real_results_and_says_what_its_axes_are(mini, entry):
    for drawn in entry.draw(by_kind(mini)):
        if isinstance(drawn, Table):
            assert drawn.rows
            assert {len(row) for row in drawn.rows} == {len(drawn.heads)}
            assert "FVU" in drawn.heads or "score" in drawn.heads
            continue
        assert isinstance(drawn, Chart)
        assert drawn.panels
        for panel in drawn.panels:
            assert (panel.x or drawn.x).label
            assert (panel.y or drawn.y).label
            assert panel.matrix is not None or panel.lines


def test_every_entropy_that_is_drawn_has_its_fvu(mini):
    trace = {kind: results.read_trace(found(mini, kind)) for kind in ("trace by position", "trace by shots", "two tokens")}
    cells = results.read_cells(found(mini, "synthetic"))
    charts = [
        paper.figure_2(cells),
        paper.figure_3(trace["trace by position"]),
        paper.figure_4(trace["trace by shots"]),
        paper.figure_11(trace["two tokens"]),
        paper.figure_12(cells),
        *paper.figures_29_to_34(cells),
    ]
    for chart in charts:
        assert all(point.fvu is not None for point in points_of(chart)), chart.name


def test_points_of_fig_3_are_the_entropies_of_the_cells_files(mini):
    expected = set()
    for path in (mini / "entropy" / "cells").rglob("*.json"):
        for row in json.loads(path.read_text())["rows"]:
            expected.add((row["place"]["position"], row["figures"]["entropy"], row["figures"]["fvu"]))
    chart = paper.figure_3(results.read_trace(found(mini, "trace by position")))
    assert {(p.x, p.y, p.fvu) for p in points_of(chart)} == expected
    assert len(expected) == 12


def test_points_of_fig_2_are_the_means_over_seeds(mini):
    cells = results.read_cells(found(mini, "synthetic"))
    other = [cell._replace(cell=cell.cell._replace(seed=1), found=cell.found._replace(entropy=50.0, fvu=0.5)) for cell in cells]
    for point in points_of(paper.figure_2([*cells, *other])):
        assert point.high == 50
        assert point.y == pytest.approx((point.low + 50) / 2)
    assert {line.name for line in paper.figure_2(cells).panels[0].lines} == {
        "H = r",
        "4x, with the entropy loss",
        "4x, without",
    }


def test_fig_12_is_of_rank_2_and_says_so_where_there_is_none(mini):
    cells = results.read_cells(found(mini, "synthetic"))
    (panel,) = paper.figure_12(cells).panels
    steps = [point.about["step"] for point in panel.lines[-1].points]
    assert steps == sorted(steps)
    shades = [point.shade for point in panel.lines[-1].points]
    assert shades == sorted(shades)
    with pytest.raises(ValueError, match="no set of rank 2 was trained on: add it"):
        paper.figure_12([cell._replace(cell=cell.cell._replace(r=4)) for cell in cells])


def test_bars_of_fig_5_count_every_feature_once(mini):
    compared = results.read_compared(found(mini, "compare"))
    chart = paper.figure_5(compared.lines, compared.hook)
    for line, panel in zip(compared.lines, chart.panels, strict=True):
        dead, alive, _ = panel.lines
        assert dead.points[0].y + sum(point.y for point in alive.points) == len(line.frequency) == 512
        assert f"FVU {line.figures[0].fvu:.3f}" in panel.title
    with pytest.raises(ValueError, match="no dictionary of the comparison has features"):
        paper.figure_5([line._replace(frequency=None) for line in compared.lines], "here")


def test_magnitudes_come_back_as_they_were_pictured(mini):
    compared = results.read_compared(found(mini, "compare"))
    names = [one.name for one in compared.magnitudes]
    assert names == ["bae, x4", "relu_paper, x4", "topk_paper, x4"]
    chart = paper.figures_35_to_38(compared.magnitudes, compared.hook)
    assert [panel.matrix.unit.split(",")[0] for panel in chart.panels] == ["burstiness", "activation", "activation"]
    assert all(one.values.max() <= 0 for one in compared.magnitudes[:1])
    with pytest.raises(ValueError, match="kept no magnitudes"):
        paper.figures_35_to_38([], "here")


def test_curves_of_figs_24_to_28_are_means_of_the_scores_so_far(mini):
    runs = [results.read_named(one) for one in find_results(mini) if one.kind == "comsem"]
    chart = paper.figures_24_to_28(runs)
    assert chart.panels[1].title.startswith("BAE: ")
    bae = next(run for run in runs if run.is_bae)
    scores = sorted(bae.scores, reverse=True)
    expected = [total / n for n, total in enumerate(itertools.accumulate(scores), 1)]
    assert [point.y for point in chart.panels[0].lines[0].points] == pytest.approx(expected)


def test_table_1_joins_comparison_transcoder_and_comsem_at_one_hook_point(mini):
    (drawn,) = next(entry for entry in ENTRIES if entry.label == "Table 1").draw(by_kind(mini))
    rows = {row[1]: dict(zip(drawn.heads, row, strict=True)) for row in drawn.rows}
    assert list(rows) == ["BAE", "ReLU SAE", "ReLU SAE Resc.", "Top-k SAE", "TransCoder"]
    lines = {line["method"]: line for line in json.loads((mini / "compare" / "layer1" / "results.json").read_text())["lines"]}
    figures = lines["relu_paper"]["figures"][0]
    assert rows["ReLU SAE"]["Act."] == figures["act_more_than_8"]
    assert rows["ReLU SAE Resc."]["Act."] == figures["resc_more_than_8"]
    assert rows["ReLU SAE"]["Cov, d' x d'"] == figures["cov"]["rows"]
    summary = json.loads((mini / "comsem" / "layer1-relu_paper_rescaled" / "summary.json").read_text())
    assert rows["ReLU SAE Resc."]["score"] == summary["score"]
    assert rows["TransCoder"]["score"] is None


def test_table_4_keeps_as_many_of_the_baes_best_as_another_has():
    bae = results.Named("bae", "h", True, [1.0, 0.5, 0.0, 0.0], [None] * 4, 4, 2, 0.375, 8, [])
    other = results.Named("topk", "h", False, [0.5, 0.5], [None] * 2, 2, 2, 0.5, 8, [])
    found = table_4([bae, other])
    assert found.rows[-1] == ["h", "BAE (top 2)", 2, 2, 0.75]
    with pytest.raises(ValueError, match="scored no feature"):
        table_4([bae._replace(scores=[])])


def test_maps_are_shared_out_between_figs_42_and_43():
    maps = [results.Map(f"#{i}", [(0.0, 0.0), (1.0, 1.0)], [True, False]) for i in range(6)]
    run = results.Named("bae", "h", True, [], [], 0, 0, None, 8, maps)
    titles = [[panel.title for panel in figure(run).panels] for figure in (paper.figure_42, paper.figure_43)]
    assert titles == [["#0", "#1", "#2"], ["#3", "#4", "#5"]]
    with pytest.raises(ValueError, match="--umap"):
        paper.figure_42(run._replace(maps=[]))


def test_what_is_drawn_lies_beside_a_page_that_shows_it_and_what_is_not_says_its_command(mini):
    listed = json.loads((mini / "figures" / "figures.json").read_text())["figures"]
    assert [one["label"] for one in listed if one["reason"]] == list(MAPPED)
    assert all("bae-lens interpret" in one["reason"] for one in listed if one["reason"])
    files = [name for one in listed for name in one["files"]]
    assert len(files) == len(set(files))
    assert all((mini / "figures" / name).stat().st_size > 100 for name in files)
    page = (mini / "figures" / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {name for name in files if name.endswith((".png", ".svg", ".html"))} == set(sources)
    assert not re.findall(r'(?:src|href)="https?:', page)
    assert (mini / "figures" / "plotly.min.js").stat().st_size > 1_000_000


def test_without_results_nothing_is_drawn_and_every_figure_says_its_command(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert main(["figures", "--from", str(tmp_path / "runs"), "--out", str(tmp_path / "figures")]) == 0
    out = capsys.readouterr().out
    assert "0 of 18 could be drawn" in out
    assert out.count("no results for it yet; they come of bae-lens ") == 18
    assert main(["figures", "--from", str(tmp_path / "none"), "--out", str(tmp_path / "figures")]) == 2
    assert "there is no directory" in capsys.readouterr().err


def test_damaged_results_stop_no_other_figure(mini, tmp_path):
    shutil.copytree(mini / "taskvec", tmp_path / "runs" / "taskvec")
    shutil.copytree(mini / "codec", tmp_path / "runs" / "codec")
    (tmp_path / "runs" / "taskvec" / "results.json").write_text('{"curves": [')
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "benchmark.json").write_text("[")
    said: list[str] = []
    every = {one.entry.label: one for one in draw_figures(tmp_path / "runs", tmp_path / "figures", said.append)}
    assert "is not whole" in every["Fig. 6"].reason
    assert every["Table 3"].drawn
    draw_figures(tmp_path / "runs", tmp_path / "figures", said.append)  # figures are drawn again where figures are


def test_figures_do_not_take_the_place_of_anything_else(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="already holds something"):
        draw_figures(tmp_path / "runs", tmp_path / "figures", lambda line: None)


def test_several_directories_of_a_kind_have_a_figure_each_named_by_its_directory(mini, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(mini / "codec" / "layer1", tmp_path / "runs" / "codec" / name)
    every = {one.entry.label: one for one in draw_figures(tmp_path / "runs", tmp_path / "figures", lambda line: None)}
    assert [table.name for table in every["Table 3"].drawn] == ["table3-codec-a", "table3-codec-b"]


def test_names_from_files_cannot_become_html(mini, tmp_path):
    evil = "<script>alert(1)</script>"
    shutil.copytree(mini / "comsem" / "layer1-bae", tmp_path / "runs" / "comsem")
    path = tmp_path / "runs" / "comsem" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": evil}))
    draw_figures(tmp_path / "runs", tmp_path / "figures", lambda line: None)
    for page in ("index.html", "fig24.html"):
        assert evil not in (tmp_path / "figures" / page).read_text()
    assert evil.encode() not in (tmp_path / "figures" / "fig24.svg").read_bytes()
