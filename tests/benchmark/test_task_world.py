import json

import torch

from bae_lens.activations.prompts import TEMPLATE, read_task
from bae_lens.benchmark.task_world import FILLERS, LABELS, SHOTS, WORDS, divided, new_world, write_task


def test_every_task_gives_every_word_a_label_and_no_two_tasks_agree():
    tasks = new_world().tasks
    answers = [[example.label for example in task.queries] for task in tasks]
    assert all(sorted(labels) == sorted(LABELS) for labels in answers)
    assert len({tuple(labels) for labels in answers}) == len(tasks) == 4


def test_a_line_shows_distinct_words_of_one_task_with_that_tasks_labels():
    world = new_world(template=TEMPLATE, fillers=2)
    task = world.tasks[1]
    truth = {example.text: example.label for example in task.queries}
    shown = world.line(task, 3, torch.Generator().manual_seed(0)).split("\n")
    assert len(shown) == 4
    words = []
    for part in shown:
        head, *fillers, word, tail, label = part.split()
        assert (head, tail) == ("sentence:", "sentiment:")
        assert len(fillers) == 2
        assert set(fillers) <= set(FILLERS)
        assert label == truth[word]
        words.append(word)
    assert len(set(words)) == 4


def test_files_of_a_task_are_read_as_a_task_and_share_no_word(tmp_path):
    world = new_world(fillers=1)
    write_task(world, world.tasks[0], tmp_path, 40)
    task = read_task(tmp_path / "queries.jsonl", demonstrations=tmp_path / "demonstrations.jsonl")
    asked, shown = ({example.text.split()[-1] for example in part} for part in (task.queries, task.demonstrations))
    assert asked | shown == set(WORDS)
    assert not asked & shown
    assert len({example.text for example in task.queries}) == len(task.queries) > SHOTS
    assert task.labels == sorted(LABELS)
    assert json.loads((tmp_path / "queries.jsonl").read_text().splitlines()[0]).keys() == {"text", "label"}


def test_a_divided_task_has_half_of_the_words_on_each_side():
    part = divided(new_world().tasks[0], 3)
    assert len(part.queries) == len(part.demonstrations) == SHOTS
    assert not {example.text for example in part.queries} & {example.text for example in part.demonstrations}
