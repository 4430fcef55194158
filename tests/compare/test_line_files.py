import json

import pytest
import torch

from bae_lens.compare.decoder import DecoderCovariance
from bae_lens.compare.evaluate import Figures
from bae_lens.compare.figures import Magnitudes, curves_chart, frequency_chart, magnitudes_bytes, read_magnitudes
from bae_lens.compare.lines import BitsAt, Line
from bae_lens.compare.search import Try
from bae_lens.compare.table import line_as_json, line_from_json

LINE = Line(
    name="topk",
    width="x4",
    family="saelens",
    tuned="k = 8",
    figures=[Figures(fvu=0.1, loss=1.0, bits=90.0, bits_fvu=0.11, dense=3, cov=DecoderCovariance(1.0, 2.0, 3.0, 4.0))],
    frequency=torch.tensor([0.0, 1.0, 0.05, 0.2, 1e-9], dtype=torch.float64),
    stability=0.5,
    seconds=[3.0],
    tries=(Try(8.0, 0.11),),
    points=((0.11, 90.0), (0.2, 40.0)),
    refined_points=((0.12, 60.0),),
    at=(BitsAt(0.1, [95.0], None),),
)


def test_a_line_comes_back_from_its_file_but_for_which_sae_is_kept():
    found = line_from_json(json.loads(json.dumps(line_as_json(LINE))))
    assert found._replace(frequency=None) == LINE._replace(frequency=None)
    assert torch.allclose(found.frequency, LINE.frequency, atol=1e-7)
    pca = LINE._replace(frequency=None)
    assert line_from_json(json.loads(json.dumps(line_as_json(pca)))) == pca


def test_a_line_of_an_older_version_is_not_taken_for_one():
    old = line_as_json(LINE)
    del old["frequency"]
    with pytest.raises(KeyError):
        line_from_json(old)


def test_bars_stand_where_features_are_on_and_dead_ones_apart():
    (panel,) = frequency_chart([LINE]).panels
    dead, bars, dense = panel.lines
    assert dead.points[0].y == 2
    where = {point.x: point.y for point in bars.points if point.y}
    assert sum(where.values()) == 3
    assert min(where) == 1e-6  # rarer ones stand with the rarest that have a place
    assert [point.x for point in dense.points] == [0.1, 0.1]


def test_refined_codes_have_a_paler_line_of_their_own():
    plain, refined = curves_chart([LINE]).panels[0].lines
    assert (plain.name, refined.name) == ("topk", "topk, refined")
    assert plain.points[0].opacity > refined.points[0].opacity


def test_magnitudes_are_kept_as_numbers_and_damage_is_said(tmp_path):
    shown = [Magnitudes("bae, x4", -torch.rand(3, 4), True, 100, 512), Magnitudes("topk", torch.rand(2, 2), False, 9, 8)]
    path = tmp_path / "magnitudes.safetensors"
    path.write_bytes(magnitudes_bytes(shown))
    for one, other in zip(read_magnitudes(path), shown, strict=True):
        assert one._replace(values=None) == other._replace(values=None)
        assert torch.allclose(one.values, other.values, atol=1e-3)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="holds no magnitudes that `bae-lens compare` wrote"):
        read_magnitudes(path)
