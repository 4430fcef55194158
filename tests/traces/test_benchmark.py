"""What benchmarks/traces.py samples and counts; its figures are no test's."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "traces.py"
    spec = importlib.util.spec_from_file_location("benchmarks_traces", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_nucleus_is_the_fewest_likeliest_tokens_that_hold_the_share(benchmark):
    scores = torch.randn(5, 600, generator=torch.Generator().manual_seed(0)) * 4
    found = benchmark.nucleus(torch.empty(0), scores)
    for row, kept in zip(scores.double(), found, strict=True):
        p = (row / benchmark.TEMPERATURE).softmax(0)
        total, wanted = 0.0, []
        for token in p.argsort(descending=True).tolist():
            if total >= benchmark.TOP_P:
                break
            wanted.append(token)
            total += p[token].item()
        assert sorted(wanted) == kept.isfinite().nonzero().flatten().tolist()
        expected = p[wanted] / p[wanted].sum()
        torch.testing.assert_close(kept.double().softmax(0)[wanted], expected, atol=1e-5, rtol=1e-4)


def test_token_ids_are_harvested_as_they_were_sampled(benchmark):
    assert benchmark.TokenIds()(["5 17 2047", "3"], verbose=False) == {"input_ids": [[5, 17, 2047], [3]]}


def test_a_stage_that_is_taken_up_again_counts_all_that_it_took(benchmark, tmp_path):
    args = benchmark.argparse.Namespace(out=tmp_path, processes=None)
    assert benchmark.timed(args, "1-sample", lambda: 5) == 5
    path = tmp_path / "stages" / "1-sample.json"
    path.write_text(json.dumps({"seconds": 100, "cpu_seconds": 50}))
    benchmark.timed(args, "1-sample", lambda: 6)
    cell = tmp_path / "samples" / "cells" / "seed0.json"
    cell.parent.mkdir(parents=True)
    cell.write_text(json.dumps({"cpu_seconds": 7}))
    found = benchmark.stages_of(args)
    assert found["all"] == found["1-sample"]
    assert found["1-sample"].seconds > 100
    assert 57 <= found["1-sample"].cpu_seconds < 58
