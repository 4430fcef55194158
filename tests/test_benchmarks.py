"""What the benchmarks' options promise; their figures are no test's."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from bae_lens.objective import covariance

ROOT = Path(__file__).parent.parent


@pytest.fixture
def step(monkeypatch):
    """benchmarks/step.py; what it changes in the package is put back."""
    monkeypatch.setattr(covariance, "fastest_product", covariance.fastest_product)
    spec = importlib.util.spec_from_file_location("benchmarks_step", ROOT / "benchmarks" / "step.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_the_covariance_is_counted_in_the_products_that_are_asked_for(step, name, tmp_path, capsys, monkeypatch):
    counted = []
    for own, product in step.PRODUCTS.items():

        def multiply(a, b, own=own, multiply=product.multiply):
            counted.append(own)
            return multiply(a, b)

        monkeypatch.setitem(step.PRODUCTS, own, product._replace(multiply=multiply))
    step.main(["--products", name, "--only", "kernels", "--json", str(tmp_path / "out.json")])
    assert f"counts in {name} products" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["products"] == name
    bits = (torch.rand(64, 30) < 0.5).float()
    assert covariance.covariance_loss(bits) > 0
    assert set(counted) == {name}


def test_products_are_refused_where_kernels_count(step, capsys):
    with pytest.raises(SystemExit):
        step.main(["--device", "cuda", "--products", "fp32"])
    assert "leave it away" in capsys.readouterr().err


def test_the_commands_of_the_page_on_a_training_step_are_taken(step):
    page = (ROOT / "docs" / "training_step.md").read_text(encoding="utf-8")
    commands = re.findall(r"`python benchmarks/step\.py ([^`]*)`", page)
    assert any("--products fp32" in command for command in commands)
    for command in commands:
        step.parse(command.split())
