"""Every public name is fuzzed: by which test of this folder."""

import ast
from pathlib import Path

import bae_lens
from bae_lens import codec

FUZZED = {
    "BAE BAEConfig": "test_a_bae_of_any_configuration_encodes_or_is_refused",
    "TrainingBAE TrainingBAEConfig": "test_a_training_configuration_is_taken_or_refused",
    "TrainerConfig": "test_a_trainers_configuration_is_taken_or_refused",
    "Schedule": "test_a_schedule_is_refused_or_a_factor_from_0_to_1_at_every_step",
    "Recipe recipes": "test_a_recipe_is_made_or_refused",
    "train_together": "test_baes_are_trained_together_and_each_that_cannot_be_says_why",
    "distributed": "test_one_process_is_one_team_or_refused",
    "train_grid GridOptions": "test_a_grid_is_trained_or_refused",
    "train": "test_training_gives_a_finite_bae_or_says_why_not",
    "save_activations": "test_activations_are_saved_and_read_back_or_refused",
    "ActivationDataset": "test_a_dataset_is_asked_for_anything_and_answers_or_refuses",
    "read_documents": "test_any_bytes_are_documents_or_no_text",
    "split_documents": "test_documents_are_split_without_losing_one_or_refused",
    "distill_encoder": "test_an_encoder_is_distilled_or_refused",
    "entropy_estimates": "test_entropies_are_estimated_or_refused",
    "tokenize harvest Activations": "test_text_is_cut_into_windows_and_harvested_or_refused",
    "harvest_to_disk ModelActivations": "test_a_harvest_to_disk_ends_whole_or_is_refused",
    "attach inspect": "test_a_bae_is_attached_and_detached_or_refused",
    "steer": "test_features_are_steered_or_refused_and_nothing_stays_hooked",
    "feature_effect": "test_a_features_effect_is_measured_or_refused",
    "task_vector": "test_a_task_vector_is_made_or_refused",
    "load load_sae": "test_what_is_not_there_is_not_loaded",
    "load_model load_for_harvest": "test_models_that_are_not_there_are_not_loaded",
    "save": "test_a_bae_is_saved_whole_or_refused",
    "codec.CodecSettings codec.compress codec.decompress codec.open codec.BaezFile": (
        "test_vectors_are_compressed_and_come_back_or_are_refused"
    ),
}
NO_CALLS = {"__version__", "SURROGATES", "Surrogate", "codec.DamagedFileError", "codec.Summary"}
"""A text, a table and its rows; an error, and what a call gives back."""


def test_every_public_name_is_fuzzed():
    public = {*bae_lens.__all__, *(f"codec.{name}" for name in codec.__all__)}
    assert {name for names in FUZZED for name in names.split()} | NO_CALLS == public
    nodes = [node for path in Path(__file__).parent.glob("test_fuzz_*.py") for node in ast.parse(path.read_text()).body]
    tests = {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    assert set(FUZZED.values()) == tests
