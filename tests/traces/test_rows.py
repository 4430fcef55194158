import csv
import io
import json

import pytest

from bae_lens.cells import CellDirectory
from bae_lens.traces.rows import Row, csv_table, depth_of, markdown_table, read_rows


def row(hook, shots, **figures):
    return Row({"hook": hook, "shots": shots}, {"fvu": 0.125, **figures})


def test_a_layer_is_as_deep_as_the_papers():
    hooks = [
        "hook_embed",
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_mid",
        "blocks.0.hook_resid_post",
        "blocks.11.attn.hook_z",
    ]
    assert [depth_of(hook) for hook in hooks] == [0, 0, 0.5, 1, 11.5]


def test_rows_come_in_the_order_of_the_model_whatever_order_they_were_made_in(tmp_path):
    directory = CellDirectory.open(tmp_path / "out", "test", {})
    hooks = ["blocks.10.hook_resid_pre", "blocks.9.hook_resid_pre"]
    for i, (hook, shots) in enumerate([(h, s) for h in hooks for s in (8, 10, 2)]):
        directory.write(f"cell{i}", {"rows": [row(hook, shots)._asdict()]})
    found = [(r.place["hook"], r.place["shots"]) for r in read_rows(directory)]
    assert found == [(h, s) for h in reversed(hooks) for s in (2, 8, 10)]
    directory.cell("cell0").write_text(json.dumps({"settings": {}}))
    with pytest.raises(ValueError, match=r"cell0\.json is no whole cell: remove it"):
        read_rows(directory)


def test_tables_hold_every_figure_and_leave_empty_what_there_is_not():
    rows = [row("blocks.1.hook_resid_pre", 0, entropy=12.5, joint=None), row("blocks.1.hook_resid_pre", 1, vectors=7)]
    found = list(csv.DictReader(io.StringIO(csv_table(rows))))
    assert found[0] == {
        "hook": "blocks.1.hook_resid_pre",
        "shots": "0",
        "fvu": "0.125",
        "entropy": "12.5",
        "joint": "",
        "vectors": "",
    }
    assert found[1]["vectors"] == "7"
    table = markdown_table(rows)
    assert "12.50" in table
    assert "0.1250" in table
