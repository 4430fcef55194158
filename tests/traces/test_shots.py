"""Which prompts of a trace by shots are trained on, and which are held out."""

import pytest

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.prompts import read_task
from bae_lens.demo import demo_model_dir
from bae_lens.traces.shots import ShotOptions, run_shots

HOOK = "blocks.1.hook_resid_pre"


def write_tasks(directory, queries):
    """Queries and demonstrations, a file each."""
    kinds = ("poor", "fine")
    (directory / "asked.txt").write_text("".join(f"{label} {text}\n" for text, label in queries))
    (directory / "shown.txt").write_text("".join(f"{i % 2} a {kinds[i % 2]} example {i}\n" for i in range(20)))
    return read_task(directory / "asked.txt", demonstrations=directory / "shown.txt")


def sides(directory, **options):
    """Queries that are trained on, and those that are held out, by the number of shots; both in the order of the vectors."""
    files = {"task": directory / "asked.txt", "demonstrations": directory / "shown.txt"}
    given = {"model": str(demo_model_dir()), "shots": [0, 2], "hooks": [HOOK], "steps": 2, "scored": 1, "processes": 1}
    given |= {"changes": {"batch_size": 32}, "expansion": 0.5, "out": directory / "icl"}
    found = run_shots(ShotOptions(**given | files | options), say=lambda line: None)
    assert not found.failures
    metadata = {
        shots: ActivationDataset(directory / "icl" / "activations" / f"{shots}-shot" / HOOK).metadata for shots in (0, 2)
    }
    return {shots: (values["train"], values["documents"]) for shots, values in metadata.items()}


@pytest.mark.parametrize("prompts", [100, None, 450])
def test_a_share_of_those_that_are_asked_is_held_out_however_many_that_are(tmp_path, prompts):
    """Of 300 queries a third is asked, all, and half of them twice."""
    write_tasks(tmp_path, [(f"the film number {i}", i % 2) for i in range(300)])
    found = sides(tmp_path, prompts=prompts)
    for train, documents in found.values():
        assert train + len(documents) == (prompts or 300)
        assert len(set(documents)) == (20 if prompts == 100 else 60)
        assert len(set(documents)) <= len(documents) <= (60 if prompts is None else 0.3 * prompts)
    assert sorted(found[0][1]) == sorted(found[2][1])


def test_a_text_that_stands_in_the_file_several_times_is_on_one_side(tmp_path):
    queries = [(f"the film number {i % 60}", i % 2) for i in range(180)]
    task = write_tasks(tmp_path, queries)
    for train, documents in sides(tmp_path).values():
        texts = {task.queries[place].text for place in documents}
        assert len(texts) == 12
        assert len(documents) == 36  # every place of each
        assert train == 144
