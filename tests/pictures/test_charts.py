import io
import itertools
import re

import pytest

from bae_lens.pictures.charts import LEAST_OPACITY, Axis, Chart, Line, Panel, Point, shades
from bae_lens.pictures.interactive import chart_html
from bae_lens.pictures.static import chart_png

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
