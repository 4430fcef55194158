"""Runs that are interrupted, resumed, killed and damaged: real processes, real files, equality to the last bit."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from sae_lens import TrainingSAE

import bae_lens
from bae_lens.training import run_directory
from bae_lens.training.config import Recipe
from bae_lens.training.recipes import recommended


def vectors(samples=2000, d=16, seed=1):
    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed))


def quick(**changes):
    recipe = recommended(16, 2, steps=60, batch_size=128)
    sae = {k: changes.pop(k) for k in list(changes) if k in ("d_sae", "entropy_weight", "surrogate")}
    return Recipe(
        dataclasses.replace(recipe.sae, **sae), dataclasses.replace(recipe.trainer, **{"checkpoint_every": 20, **changes})
    )


def stop_at(monkeypatch, step):
    """Sends this process a real Ctrl-C when training comes to a step."""
    from bae_lens.objective.training_bae import TrainingBAE

    forward = TrainingBAE.training_forward_pass

    def interrupted(self, step_input):
        if step_input.n_training_steps == step:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, step_input)

    monkeypatch.setattr(TrainingBAE, "training_forward_pass", interrupted)


def interrupt(monkeypatch, x, recipe, out, step, **options):
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(KeyboardInterrupt, match=f"after {step + 1} of 60 steps.*resume=True"):
            bae_lens.train(x, recipe, out=out, progress=False, **options)


def equal(one, two):
    state = two.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


def assert_same_run(resumed, whole, directory):
    """Weights, metrics and the files "run" and "whole" of a directory."""
    assert equal(resumed.bae, whole.bae)
    assert (resumed.history, resumed.flipped) == (whole.history, whole.flipped)
    for name in ("metrics.jsonl", "result.json", "sae_weights.safetensors"):
        assert (directory / "run" / name).read_bytes() == (directory / "whole" / name).read_bytes()


def in_memory():
    return vectors()


def stream():
    return list(vectors().split(300))


@pytest.mark.parametrize("data", [in_memory, stream])
@pytest.mark.parametrize("step", [7, 19, 33])
def test_a_resumed_run_equals_an_undisturbed_one_to_the_last_bit(tmp_path, monkeypatch, data, step):
    """Seed 0; the passes over the data are 15 steps long, so both interruptions lie inside one."""
    recipe, held_out = quick(log_every=5, validate_every=10), vectors(100, seed=2)
    whole = bae_lens.train(data(), recipe, out=tmp_path / "whole", validation=held_out, progress=False)
    interrupt(monkeypatch, data(), recipe, tmp_path / "run", step, validation=held_out)
    resumed = bae_lens.train(data(), recipe, out=tmp_path / "run", validation=held_out, resume=True, progress=False)
    assert equal(whole.bae, resumed.bae)
    assert resumed.history == whole.history
    assert resumed.bae.cfg.prior_samples == whole.bae.cfg.prior_samples
    assert resumed.validation == whole.validation
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("step", [29, 33])
def test_a_resumed_run_revises_where_an_undisturbed_one_does(tmp_path, monkeypatch, step):
    """At step 29 the checkpoint lies right before the revision, which comes after it in both."""
    recipe = quick(revise_at=(0.5,))
    whole = bae_lens.train(vectors(), recipe, progress=False)
    assert not equal(whole.bae, bae_lens.train(vectors(), quick(), progress=False).bae)
    interrupt(monkeypatch, vectors(), recipe, tmp_path / "run", step)
    assert equal(whole.bae, bae_lens.train(vectors(), recipe, out=tmp_path / "run", resume=True, progress=False).bae)


def test_activations_on_disk_train_to_the_same_bae_as_in_memory(tmp_path):
    x = vectors()
    dataset = bae_lens.save_activations(tmp_path / "acts", x.split(700), shard_vectors=900)
    one, two = (bae_lens.train(data, quick(), progress=False).bae for data in (x, dataset))
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_a_resumed_run_goes_on_from_its_last_checkpoint_and_keeps_the_last_few(tmp_path, monkeypatch):
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 47)
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["step-00000040", "step-00000048"]
    assert not (tmp_path / "run" / "cfg.json").exists()
    with pytest.raises(FileNotFoundError, match="no cfg.json"):
        bae_lens.load(tmp_path / "run")
    bae_lens.train(vectors(), quick(keep_checkpoints=1), out=tmp_path / "run", resume=True, progress=False)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000060"]
    assert equal(bae_lens.load(tmp_path / "run"), bae_lens.train(vectors(), quick(), progress=False).bae)


def test_a_run_that_has_ended_is_read_and_not_repeated(tmp_path):
    first = bae_lens.train(vectors(), quick(), out=tmp_path / "run", progress=False)
    written = (tmp_path / "run" / "sae_weights.safetensors").stat().st_mtime_ns
    again = bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False)
    assert (tmp_path / "run" / "sae_weights.safetensors").stat().st_mtime_ns == written
    assert again.history == first.history
    assert again.flipped == first.flipped
    assert equal(first.bae, again.bae)


def test_resuming_where_there_is_nothing_begins(tmp_path):
    bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False)
    assert equal(bae_lens.load(tmp_path / "run"), bae_lens.train(vectors(), quick(), progress=False).bae)


def test_a_run_is_not_overwritten_without_resume(tmp_path, monkeypatch):
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 30)
    with pytest.raises(FileExistsError, match="a run: resume=True"):
        bae_lens.train(vectors(), quick(), out=tmp_path / "run", progress=False)


def test_a_recipe_that_differs_is_refused_with_every_field_named(tmp_path, monkeypatch):
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 30)
    changed = quick(learning_rate=1e-3, entropy_weight=0.5, entropy_schedule=bae_lens.Schedule(delay=0.5), checkpoint_every=7)
    with pytest.raises(ValueError, match="another recipe") as error:
        bae_lens.train(vectors(), changed, out=tmp_path / "run", resume=True, progress=False)
    for part in ("sae.entropy_weight was 0.1 and is 0.5", "trainer.learning_rate was 0.005 and is 0.001", "schedule.delay"):
        assert part in str(error.value)
    assert "checkpoint_every" not in str(error.value)


@pytest.mark.parametrize("name", ["recommended", "paper"])
@pytest.mark.parametrize("ended", [False, True])
def test_other_data_are_refused_whatever_is_centred_and_a_run_that_has_ended_too(tmp_path, monkeypatch, name, ended):
    recipe = bae_lens.recipes.get_recipe(name)(16, 2, steps=60)
    train = dict(out=tmp_path / "run", validation=vectors(50), metadata={"hook_name": "h"})
    with monkeypatch.context() as patch:
        if not ended:
            stop_at(patch, 30)
        with contextlib.suppress(KeyboardInterrupt):
            bae_lens.train(vectors(), recipe, **train, progress=False)
    shuffled = vectors()[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    changes = {"activations": shuffled, "validation": vectors(50, seed=3), "metadata": {"hook_name": "g"}}
    for field, value in changes.items():
        changed = {"activations": vectors(), **train, field: value}
        with pytest.raises(ValueError, match=f"other activations or metadata: {field}"):
            bae_lens.train(changed.pop("activations"), recipe, **changed, resume=True, progress=False)


@pytest.mark.parametrize("file", ["sae_weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_cut_short_is_said_and_the_one_before_is_used(tmp_path, monkeypatch, file):
    whole = bae_lens.train(vectors(), quick(), progress=False).bae
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 47)
    damaged = tmp_path / "run" / "checkpoints" / "step-00000048" / file
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="step-00000040 is used instead"):
        resumed = bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False).bae
    assert equal(whole, resumed)
    assert damaged.parent.with_name("damaged-step-00000048").exists()


def test_a_checkpoint_is_a_training_sae_that_saelens_loads(tmp_path, monkeypatch):
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 47)
    sae = TrainingSAE.load_from_disk(tmp_path / "run" / "checkpoints" / "step-00000048")
    assert isinstance(sae, bae_lens.TrainingBAE)
    assert sae.cfg.entropy_weight == 0.1


def test_a_kill_while_the_bae_is_put_in_place_loses_no_step(tmp_path, monkeypatch):
    whole = bae_lens.train(vectors(), quick(), progress=False).bae
    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "move_into", lambda *args: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space"):
            bae_lens.train(vectors(), quick(checkpoint_every=0), out=tmp_path / "run", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(bae_lens.TrainingBAE, "training_forward_pass", lambda *args: pytest.fail("a step was made again"))
        resumed = bae_lens.train(vectors(), quick(checkpoint_every=0), out=tmp_path / "run", resume=True, progress=False).bae
    assert equal(whole, resumed)


def test_ctrl_c_in_the_last_step_is_not_swallowed(tmp_path, monkeypatch):
    whole = bae_lens.train(vectors(), quick(), out=tmp_path / "whole", progress=False)
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 59)
    assert not (tmp_path / "run" / "cfg.json").exists()
    assert (tmp_path / "run" / "checkpoints" / "step-00000060").is_dir()
    resumed = bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False)
    assert_same_run(resumed, whole, tmp_path)


def test_a_run_of_an_older_version_without_some_fields_goes_on_as_if_undisturbed(tmp_path, monkeypatch):
    whole = bae_lens.train(vectors(), quick(), out=tmp_path / "whole", progress=False)
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 30)
    path = tmp_path / "run" / "recipe.json"
    recipe = json.loads(path.read_text())
    del recipe["recipe"]["sae"]["entropy_batch_share"], recipe["recipe"]["trainer"]["warm_share"]
    path.write_text(json.dumps(recipe))
    resumed = bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False)
    assert_same_run(resumed, whole, tmp_path)
    assert json.loads(path.read_text()) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda recipe: [recipe], "a JSON object with run, recipe, data is expected, not a list"),
        (lambda recipe: None, "a JSON object with run, recipe, data is expected, not a NoneType"),
        (lambda recipe: {}, "it has no 'run' and it has no 'recipe' and it has no 'data'"),
        (lambda recipe: {k: v for k, v in recipe.items() if k != "recipe"}, "it has no 'recipe'"),
        (lambda recipe: {k: v for k, v in recipe.items() if k != "data"}, "it has no 'data'"),
        (lambda recipe: {k: v for k, v in recipe.items() if k != "run"}, "it has no 'run'"),
        (lambda recipe: {**recipe, "recipe": ["sae"]}, "'recipe' is a list where a dict is expected"),
        (lambda recipe: {**recipe, "data": None}, "'data' is a NoneType where a dict is expected"),
        (lambda recipe: "{", "a JSON object with run, recipe, data is expected, not a str"),
    ],
)
def test_a_recipe_file_that_is_json_but_no_runs_is_named_with_what_it_lacks(tmp_path, monkeypatch, change, message):
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 30)
    path = tmp_path / "run" / "recipe.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=rf"recipe\.json is not whole: {re.escape(message)}; put it back") as error:
        bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("content", "message"), [('{"fliped": []}', "it has no 'flipped'"), ("[", "Expecting value")])
def test_a_result_file_that_is_not_whole_is_named(tmp_path, content, message):
    bae_lens.train(vectors(), quick(), out=tmp_path / "run", progress=False)
    (tmp_path / "run" / "result.json").write_text(content)
    with pytest.raises(ValueError, match=rf"result\.json is not whole: {message}"):
        bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False)


def test_what_a_killed_process_did_not_finish_writing_is_swept_and_nothing_else(tmp_path, monkeypatch):
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 30)
    (tmp_path / "run" / "checkpoints" / ".step-00000050-abc").mkdir()
    (tmp_path / "run" / ".my-notes").write_text("x")
    bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    assert (tmp_path / "run" / ".my-notes").read_text() == "x"


def test_an_altered_checkpoint_is_not_whole_and_without_another_one_the_run_is_refused(tmp_path, monkeypatch):
    interrupt(monkeypatch, vectors(), quick(checkpoint_every=0), tmp_path / "run", 47)
    weights = tmp_path / "run" / "checkpoints" / "step-00000048" / "sae_weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"none of the checkpoints is whole: .*sae_weights\.safetensors was cut short or altered"
    ):
        bae_lens.train(vectors(), quick(checkpoint_every=0), out=tmp_path / "run", resume=True, progress=False)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_step_term_and_last_good_checkpoint(tmp_path, monkeypatch):
    interrupt(monkeypatch, vectors(), quick(), tmp_path / "run", 30)
    with monkeypatch.context() as patch:
        from bae_lens.objective import global_covariance

        patch.setattr(global_covariance, "covariance_loss", lambda bits: bits.sum() * torch.nan)
        with pytest.raises(FloatingPointError, match=r"covariance_loss is nan at step 31 .*mse_loss.*step-00000020"):
            bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False)


def test_a_checkpoint_of_weights_that_blew_up_is_not_called_good_and_one_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(FloatingPointError, match=r"mse_loss is (inf|nan) at step 1 .*no checkpoint from before"):
        bae_lens.train(vectors(), quick(learning_rate=1e30, checkpoint_every=1), out=tmp_path / "huge", progress=False)
    infinite = {"learning_rate": 1e39, "learning_rate_schedule": bae_lens.Schedule(), "checkpoint_every": 1}
    with pytest.raises(FloatingPointError, match=r"is (inf|nan) at step 1 .*no checkpoint from before"):
        bae_lens.train(vectors(), quick(**infinite), out=tmp_path / "inf", progress=False)
    assert not list((tmp_path / "inf").glob("checkpoints/*"))


def test_ctrl_c_in_a_real_process_saves_and_leaves(tmp_path):
    script = (
        "import torch, bae_lens\n"
        "recipe = bae_lens.recipes.recommended(16, 2, steps=10**6)\n"
        "x = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))\n"
        f"bae_lens.train(x, recipe, out={str(tmp_path / 'run')!r}, progress=False)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "resume=True" in message
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert json.loads((checkpoint / "state.json").read_text())["step"] >= 1
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_killed_process_leaves_whole_checkpoints_and_whole_lines(tmp_path):
    script = (
        "import torch, bae_lens\n"
        "from bae_lens.training.config import Recipe\n"
        "import dataclasses\n"
        "recipe = bae_lens.recipes.recommended(16, 2, steps=2000)\n"
        "recipe = recipe._replace(trainer=dataclasses.replace(recipe.trainer, checkpoint_every=5, log_every=1))\n"
        "x = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))\n"
        f"bae_lens.train(x, recipe, out={str(tmp_path / 'run')!r}, resume=True, progress=False)\n"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", script])
        before = len(list((tmp_path / "run").glob("checkpoints/step-*")))
        while process.poll() is None and len(list((tmp_path / "run").glob("checkpoints/step-*"))) <= min(before, 1):
            time.sleep(0.05)
        time.sleep(0.3)
        process.kill()
        process.wait()
    recipe = recommended(16, 2, steps=2000)
    recipe = recipe._replace(trainer=dataclasses.replace(recipe.trainer, checkpoint_every=500, log_every=1))
    x = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))
    result = bae_lens.train(x, recipe, out=tmp_path / "run", resume=True, progress=False)
    assert [row.step for row in result.history] == list(range(2000))
    assert equal(result.bae, bae_lens.train(x, recipe, progress=False).bae)
