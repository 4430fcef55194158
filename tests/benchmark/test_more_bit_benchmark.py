"""Table 2: what its cells are, what they measure, and that a stopped job goes on."""

import json
import re

import pytest
import torch

import bae_lens
from bae_lens.benchmark.more_bit import ACTIVATED, Cell, MoreBitOptions, cells, measure, run_more_bit, table
from bae_lens.cli import main
from bae_lens.demo import demo_model_dir


@pytest.fixture
def acts(vectors, tmp_path):
    data = torch.cat(
        [vectors + 0.1 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(i)) for i in range(12)]
    )
    return bae_lens.save_activations(tmp_path / "acts", [data], metadata={"hook_name": "blocks.1.hook_resid_pre"}).path


def test_cells_have_as_many_features_or_as_many_bits(acts, tmp_path):
    options = MoreBitOptions(activations=acts, out=tmp_path / "out", bits=[1, 2, 4], codes=["powers", "nested"])
    found = {cell: cell.recipe(128, options).sae for cell in cells(options)}
    assert [cell.name for cell in found if cell.c == 1] == ["powers/features/C1"]
    for cell, sae in found.items():
        assert (sae.d_sae if cell.same == "features" else sae.d_sae * cell.c) == 512
        assert (sae.bits_per_feature, sae.code) == (cell.c, cell.code if cell.c > 1 else "powers")


def test_figures_are_those_of_the_bae(make_bae, vectors, tmp_path):
    bae = make_bae(bits_per_feature=2)
    options = MoreBitOptions(activations=tmp_path, out=tmp_path)
    found = measure(bae, vectors, vectors, options)
    error = sum(float(((bae(x) - x).double() ** 2).sum()) for x in vectors) / vectors.numel()
    assert found.loss == pytest.approx(error, rel=1e-5)
    p = bae.bits(vectors).detach().double().mean(0)
    entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum().item() / torch.tensor(2.0).log().item()
    assert found.entropy == pytest.approx(entropy, rel=1e-5)
    assert (found.features, found.bits) == (48, 96)
    assert found.code_bits >= found.entropy
    assert 0 < found.activated <= 48
    assert ACTIVATED == 9


def test_the_command_prints_table_2_and_goes_on_where_it_was(acts, tmp_path, capsys):
    out, numbers = tmp_path / "out", tmp_path / "out.json"
    arguments = ["more-bit", "--activations", str(acts), "--bits", "1,2", "--steps", "4", "--out", str(out)]
    text = tmp_path / "text.txt"
    text.write_text("Return the number of items in the list. The module raises an error if the file is not open.\n" * 30)
    arguments += ["--model", str(demo_model_dir()), "--text", str(text), "--json", str(numbers)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "powers, d'/C = 4d features" in shown
    assert re.search(r"^powers/bits/C2: 256 features of 512 bits, FVU \d\.\d{4} at \d+\.\d bits a token", shown, re.MULTILINE)
    assert "powers, d' = 4d bits" in shown
    assert (out / "table.md").read_text().strip() in shown
    rows = json.loads(numbers.read_text())
    assert [(row["same"], row["c"], row["features"]) for row in rows] == [
        ("features", 1, 512),
        ("features", 2, 512),
        ("bits", 2, 256),
    ]
    assert all(row["interpretable"] is not None and 0 <= row["score"] <= 1 for row in rows)
    before = {file: file.stat().st_mtime_ns for file in (out / "cells").rglob("*.json")}
    lost = out / "cells" / "powers" / "bits" / "C2.json"
    lost.unlink()
    assert main(arguments) == 0
    for file, time in before.items():
        assert (file.stat().st_mtime_ns == time) == (file != lost)
    assert json.loads(numbers.read_text()) == rows


def test_the_row_of_one_bit_stands_in_every_part_of_the_table(acts, tmp_path):
    options = MoreBitOptions(activations=acts, out=tmp_path / "out", bits=[1, 2], steps=1)
    found = run_more_bit(options, say=lambda _: None)
    assert set(found) == {Cell("powers", "features", 1), Cell("powers", "features", 2), Cell("powers", "bits", 2)}
    parts = table(found).split("\n\n")
    assert all(part.count("\n") == 3 for part in parts[1::2])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"bits": []}, "list of bits is empty"),
        ({"bits": [9]}, "from 1 to 8"),
        ({"codes": ["power"]}, "did you mean 'powers'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"model": "x"}, "--model and --text together"),
    ],
)
def test_wrong_options_are_refused(fields, why, tmp_path):
    with pytest.raises(ValueError, match=why):
        MoreBitOptions(activations=tmp_path, out=tmp_path, **fields)


def test_bits_that_are_no_numbers_are_refused(tmp_path, capsys):
    assert main(["more-bit", "--activations", str(tmp_path), "--bits", "1;2"]) == 2
    assert "whole numbers with commas" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "model", "why"),
    [("none.txt", str(demo_model_dir()), "none.txt is not there: give a file"), ("a.txt", "/nowhere", "/nowhere")],
)
def test_a_text_or_model_that_is_not_there_is_said_before_anything_is_trained(acts, text, model, why, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("Return the number of items.\n")
    out = tmp_path / "out"
    command = ["more-bit", "--activations", str(acts), "--out", str(out), "--steps", "1000000"]
    assert main([*command, "--text", str(tmp_path / text), "--model", model]) == 2
    assert why in capsys.readouterr().err
    assert not out.exists()
