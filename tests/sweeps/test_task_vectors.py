import csv
import json

import pytest
import torch
from embedded import HOOK

import bae_lens
from bae_lens import cli
from bae_lens.activations.prompts import Example, Task
from bae_lens.sweeps.task_vectors import NO_DICTIONARY, Curve, TaskSweep, accuracy, shared_suffix, task_curves, task_prompts

WORDS = ["list", "file", "module", "number", "class", "string", "object", "value", "index", "key", "name", "type"]
EXAMPLES = [Example(word, "yes" if number % 2 else "not here") for number, word in enumerate(WORDS)]
TASK = Task("words", EXAMPLES[:4], EXAMPLES[4:], ["not here", "yes"])


@pytest.fixture
def prompts(model):
    return task_prompts(model, TASK, shots=2, samples=6)


def slow_accuracy(model, prompts, part, vector=0.0):
    """Labels scored one at a time, their tokens' log-probabilities summed in float64."""
    right = 0
    for text, query in zip(part.texts, part.query, strict=True):
        end = model.to_tokens(text).shape[1] - 1
        scores = []
        for label in TASK.labels:
            tokens = model.to_tokens(f"{text} {label}")

            def add(tensor, hook, end=end):
                tensor[:, end] += vector
                return tensor

            with torch.no_grad():
                log_probs = model.run_with_hooks(tokens, fwd_hooks=[(HOOK, add)])[0].double().log_softmax(-1)
            scores.append(sum(log_probs[i - 1, tokens[0, i]] for i in range(end + 1, tokens.shape[1])))
        asked = prompts.test.queries[query]
        right += TASK.labels[int(torch.stack(scores).argmax())] == asked.label
    return right / len(part.texts)


def test_no_query_makes_a_vector_and_is_measured_too(prompts):
    assert not set(prompts.making.queries) & set(prompts.test.queries)
    assert len(prompts.making.queries) + len(prompts.test.queries) == len(TASK.queries)
    assert len(prompts.bad.texts) == 4  # without demonstrations more would be copies
    assert len(prompts.good.texts) == 6
    assert all(text.count("sentiment:") == 3 for text in [*prompts.good.texts, *prompts.few_shot.texts])
    assert all(text.count("sentiment:") == 1 for text in [*prompts.bad.texts, *prompts.zero_shot.texts])


def test_curves_hold_the_accuracy_with_each_vector_at_each_strength(model, make_bae, prompts):
    saes = {"one": make_bae(), "two": make_bae(2, seed=1)}
    curves = task_curves(model, saes, prompts, strengths=[0.0, 40.0], keep=8, random=2)
    assert [curve.name for curve in curves] == ["one", "two", NO_DICTIONARY, "random 0", "random 1"]
    for curve in curves:
        assert (
            curve.accuracy[0]
            == slow_accuracy(model, prompts, prompts.zero_shot)
            == accuracy(model, prompts.test, prompts.zero_shot)
        )
    vector = bae_lens.task_vector(model, saes["one"], good=prompts.good.texts, bad=prompts.bad.texts, keep=8)
    assert curves[0].accuracy[1] == slow_accuracy(model, prompts, prompts.zero_shot, 40 * vector.direction)
    assert (curves[0].norm, curves[0].kept) == (vector.norm, len(vector.features))
    assert [curve.norm for curve in curves[3:]] == pytest.approx([vector.norm] * 2, rel=1e-5)


def test_the_strength_is_chosen_where_the_vector_was_made_and_the_gap_counted_elsewhere():
    curve = Curve("BAE", 1.0, 3, making=[0.1, 0.8, 0.8], accuracy=[0.2, 0.5, 0.9])
    sweep = TaskSweep("t", HOOK, 8, [0.0, 1.0, 2.0], zero_shot=0.2, few_shot=0.8, queries=10, curves=[curve])
    assert curve.chosen() == 1
    assert sweep.recovered(curve) == pytest.approx(0.5)


def test_saes_of_different_hook_points_are_not_compared(model, make_bae):
    other = make_bae(hook_name="blocks.2.hook_resid_pre")
    with pytest.raises(
        ValueError, match="these SAEs belong to different hook points: a at blocks.1.hook_resid_pre, b at blocks.2"
    ):
        shared_suffix(model, {"a": make_bae(), "b": other})
    with pytest.raises(ValueError, match="no SAE given"):
        shared_suffix(model, {})
    with pytest.raises(ValueError, match="this SAE's d_in is 64"):
        shared_suffix(model, {"a": make_bae(d_in=64)})


def test_tasks_that_cannot_be_split_are_refused(model):
    with pytest.raises(ValueError, match="words has 1 queries of 1 labels: two are needed"):
        task_prompts(model, TASK._replace(queries=EXAMPLES[:1]), shots=1)
    with pytest.raises(ValueError, match="shots and samples must be at least 1"):
        task_prompts(model, TASK, shots=0)
    with pytest.raises(ValueError, match="fits the context of 256 tokens"):
        task_prompts(model, TASK._replace(queries=[q._replace(text="word " * 400) for q in TASK.queries]), shots=1)


@pytest.fixture
def task_dir(tmp_path):
    (tmp_path / "task").mkdir()
    for name, part in (("queries", TASK.queries), ("demonstrations", TASK.demonstrations)):
        (tmp_path / "task" / f"{name}.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in part))
    return tmp_path / "task"


def command(tmp_path, task, *more):
    files = ["--bae", str(tmp_path / "bae"), "--task", str(task), "--out", str(tmp_path / "out")]
    return ["taskvec", *files, "--shots", "2", "--strengths", "0:2:1", "--keep", "8", "--random", "1", *more]


def test_the_command_writes_fig_6_and_goes_on_with_the_vectors_that_lack(make_bae, task_dir, tmp_path, capsys):
    bae_lens.save(make_bae(), tmp_path / "bae")
    bae_lens.save(make_bae(seed=1), tmp_path / "other")
    more = ["--sae", str(tmp_path / "other"), "--json", str(tmp_path / "all.json")]
    assert cli.main(command(tmp_path, task_dir, *more)) == 0
    assert "gap closed" in capsys.readouterr().out
    out = tmp_path / "out"
    assert (out / "fig6.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "results.json").read_text())
    assert json.loads((tmp_path / "all.json").read_text()) == found
    assert found["task"] == "task"
    assert [curve["name"] for curve in found["curves"][:2]] == [str(tmp_path / "bae"), str(tmp_path / "other")]
    assert len(list(csv.DictReader((out / "results.csv").open()))) == 4 * 3
    kept = (out / "cells" / "vector0.json").stat().st_mtime_ns
    (out / "cells" / "vector1.json").unlink()
    assert cli.main(command(tmp_path, task_dir, *more)) == 0
    assert (out / "cells" / "vector0.json").stat().st_mtime_ns == kept
    assert json.loads((out / "results.json").read_text()) == found


def test_the_command_refuses_a_task_of_one_class_and_a_directory_that_holds_none(make_bae, task_dir, tmp_path, capsys):
    bae_lens.save(make_bae(), tmp_path / "bae")
    one = tmp_path / "one.tsv"
    one.write_text("".join(f"{word}\tyes\n" for word in WORDS))
    assert cli.main(command(tmp_path, one)) == 2
    assert "a task needs two classes at least" in capsys.readouterr().err
    (task_dir / "queries.jsonl").write_text("{}")
    assert cli.main(command(tmp_path, task_dir)) == 2
    assert "must hold one file queries.* and one demonstrations.*" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(command(tmp_path, one, "--labels", "yes"))
    assert "labels are named as 0=negative,1=positive" in capsys.readouterr().err
