import io
import itertools
import re

import pytest
import torch

from bae_lens.pictures.charts import LEAST_OPACITY, Axis, Chart, Line, Matrix, Panel, Point, powers, shades, styles_of
from bae_lens.pictures.interactive import chart_html, placed, plotly_figure
from bae_lens.pictures.static import chart_png, chart_svg, static_figure

EVIL = "</script><script>alert(1)</script>"


def chart(panels=2, name="layer 1"):
    points = [Point(2**k, 10 + k, 0.1 * k, 9 + k, 12 + k, {"vectors": 100 + k}) for k in range(4)]
    lines = [Line(name, points), Line("layer 2", points[:2]), Line("a bound", [Point(1, 1), Point(8, 8)], "guide")]
    axes = Axis("position, tokens", 2, (1, 2, 4, 8)), Axis("entropy, bits")
    return Chart("chart", "A chart", *axes, [Panel(f"panel {i}", lines) for i in range(panels)], "hook point")


def test_a_markers_opacity_is_one_minus_fvu_and_never_nothing():
    assert [Point(0, 0, fvu).opacity for fvu in (0.0, 0.25, 1.5, None)] == [1.0, 0.75, LEAST_OPACITY, 1.0]


def test_shades_grow_lighter_so_that_they_can_be_told_apart_in_grey():
    def light(color):
        r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    found = list(map(light, shades(9)))
    assert found == sorted(found)
    assert min(b - a for a, b in itertools.pairwise(found)) > 8
    assert len(shades(1)) == 1


@pytest.mark.parametrize("panels", [1, 2])
def test_a_chart_is_a_png_and_one_page_with_every_point(panels):
    from matplotlib.image import imread

    picture = imread(io.BytesIO(chart_png(chart(panels))))
    assert picture.shape[0] > 400
    page = chart_html(chart(panels))
    assert not re.search(r'<script[^>]*\ssrc="', page)
    assert len(page) > 1_000_000  # plotly itself
    data = page.rsplit("Plotly.newPlot(", 1)[1]
    assert data.count('"FVU: 0.1\\u003cbr\\u003evectors: 101"') == 2 * panels
    assert "position, tokens" in data
    assert "entropy, bits" in data
    assert "opacity of a marker: 1 - FVU" in data


def test_names_from_files_and_models_cannot_become_html():
    page = chart_html(chart(name=EVIL))
    assert EVIL not in page
    assert "alert(1)" in page


def every_look():
    steps = [Point(1, 3), Point(10, 5), Point(100, 0)]
    cloud = [Point(2, 1, shade=0.4), Point(50, 4)]
    lines = [
        Line("steps", steps, "area", "#117733"),
        Line("cloud", cloud, "cloud"),
        Line("plain", steps, "plain"),
        Line("", [Point(1, 2), Point(100, 2)], "guide"),
    ]
    values = torch.arange(6.0).view(2, 3)
    own = Axis("channel"), Axis("instance")
    return Chart(
        "looks",
        "Every look",
        Axis("x, tokens", 10, powers([1, 100], 10)),
        Axis("y, bits"),
        [Panel("lines $x$", lines), Panel("colours", [], Matrix(values, 0, 5, 20, 30, "bits <i>"), *own)],
        "",
        columns=1,
        shared=False,
    )


def test_both_renderers_draw_every_look_and_matrices():
    figure = static_figure(every_look())
    axes = [one for one in figure.axes if one.get_subplotspec() is not None]
    assert axes[0].get_title() == "lines $x$"
    (steps,) = [
        found for found in axes[0].collections if type(found).__name__ in ("PolyCollection", "FillBetweenPolyCollection")
    ]
    assert steps.get_paths()[0].vertices[:, 1].max() == 5
    (image,) = axes[1].images
    assert image.get_array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert list(image.get_extent()) == [0, 30, 20, 0]
    interactive = plotly_figure(every_look())
    kinds = [trace.type for trace in interactive.data]
    assert kinds == ["scatter"] * 4 + ["heatmap"]
    assert interactive.data[0].fill == "tozeroy"
    assert interactive.data[1].marker.opacity == (0.4, 1.0)
    assert [interactive.data[4].x0, interactive.data[4].dx, interactive.data[4].y0] == [5, 10, 5]
    assert "&lt;i&gt;" in interactive.data[4].colorbar.title.text
    assert interactive.layout.yaxis2.autorange == "reversed"


def test_an_svg_holds_its_text_and_is_the_same_each_time():
    one, other = chart_svg(every_look()), chart_svg(every_look())
    assert one == other
    assert b"lines $x$" in one


def test_zero_has_a_place_on_a_logarithmic_axis_that_asks_for_it():
    axis = Axis("bits", 2, (0, 1, 2, 4), has_zero=True)
    assert [placed(axis, value) for value in (0, 0.5, 1, 2, 4)] == [0, 0.5, 1, 2, 3]
    line = Line("a", [Point(0, 0), Point(1, 4)])
    chart = Chart("c", "c", Axis("r"), axis, [Panel("", [line])], "")
    assert list(plotly_figure(chart).data[0].y) == [0, 3]
    assert list(plotly_figure(chart).data[0].customdata[1]) == [1, 4]
    assert static_figure(chart).axes[0].get_yscale() == "symlog"


@pytest.mark.parametrize(
    ("values", "base", "expected"),
    [([3, 20], 2, (2, 4, 8, 16, 32)), ([], 2, (1,)), ([0.03, 0.2], 10, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5))],
)
def test_ticks_of_a_logarithmic_axis_stand_around_the_values(values, base, expected):
    assert powers(values, base) == expected
    assert len(powers([1e-9, 1e9], 10)) <= 9


def test_a_name_has_one_colour_and_marker_in_every_panel_its_own_where_it_has_one():
    lines = [Line("a", [Point(0, 0)]), Line("b", [Point(0, 0)], color="#123456", marker=7)]
    chart = Chart("c", "c", Axis("x"), Axis("y"), [Panel("1", lines), Panel("2", lines[::-1])], "")
    styles = styles_of(chart)
    assert styles["b"] == ("#123456", 7)
    assert styles["a"].marker == 0
    drawn = plotly_figure(chart).data
    assert [trace.showlegend for trace in drawn] == [True, True, False, False]
    assert drawn[1].line.color == drawn[2].line.color == "#123456"


def test_a_page_may_read_plotly_from_a_file_beside_it():
    page = chart_html(chart(1), library="plotly.min.js")
    assert re.search(r'<script[^>]*\ssrc="plotly.min.js"', page)
    assert len(page) < 100_000
