import json

import pytest
import torch

import bae_lens
from bae_lens.benchmark.codec_job import CodecOptions, run_codec_table


@pytest.fixture
def options(tmp_path, make_bae, vectors):
    bae_lens.save_activations(tmp_path / "acts", [vectors.repeat(8, 1)], metadata={"hook_name": "blocks.1.hook_resid_pre"})
    bae = make_bae()
    bae.prior[:] = bae.bits(vectors).float().mean(0)
    bae_lens.save(bae, tmp_path / "bae")
    return CodecOptions(
        out=tmp_path / "out", activations=tmp_path / "acts", hook="blocks.1.hook_resid_pre", saes={"bae": str(tmp_path / "bae")}
    )


def test_each_way_to_store_is_a_row_and_a_job_that_was_stopped_goes_on(options):
    rows = run_codec_table(options, lambda line: None)
    stored = {(row.dictionary, row.how): row for row in rows}
    assert stored["none", "fp16"].bytes == 2 * 128
    assert stored["bae", "index, packed"].bytes < stored["bae", "index, 16 bits"].bytes
    assert stored["bae", "code, tree"].fvu == stored["bae", "code, prior"].fvu
    assert (options.out / "table.md").read_text().count("| bae ") == 6
    path = options.out / "cells" / "1-pca.json"
    changed = {"rows": json.loads(path.read_text())["rows"][:1]}
    path.write_text(json.dumps(changed))
    again = run_codec_table(options, lambda line: None)
    assert len([row for row in again if row.dictionary == "PCA"]) == 1


def test_a_dictionary_of_another_width_is_refused(options, make_bae, tmp_path):
    other = make_bae(d_in=64)
    other.prior[:] = torch.full_like(other.prior, 0.1)
    bae_lens.save(other, tmp_path / "other")
    options.saes = {"other": str(tmp_path / "other")}
    with pytest.raises(ValueError, match="takes vectors of width 64, the activations are 128 wide"):
        run_codec_table(options, lambda line: None)
