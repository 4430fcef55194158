import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import bae_lens
from bae_lens.activations.models import find_hook_point, hook_shape
from bae_lens.demo import demo_model_dir

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def make_llama(directory, seed=0, **changes):
    torch.manual_seed(seed)
    fields = {
        "vocab_size": 2048,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
    }
    LlamaForCausalLM(LlamaConfig(**(fields | changes))).save_pretrained(directory)
    for file in demo_model_dir().glob("tokenizer*"):
        shutil.copy(file, directory)
    return directory


def difference_from_hugging_face(directory, model_class, length=96):
    hf = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokens = torch.randint(hf.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = bae_lens.load_model(directory, model_class)(tokens)
        return (logits - hf(tokens).logits).abs().max().item()


@pytest.mark.parametrize("model_class", [HookedTransformer, TransformerBridge])
@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": LLAMA3_ROPE},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 4, "head_dim": 16},
        {"num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    ],
    ids=["llama3-rope", "tied", "no-gqa-wide-heads", "one-kv-head"],
)
def test_logits_of_a_local_llama_equal_hugging_faces(tmp_path, changes, model_class):
    assert difference_from_hugging_face(make_llama(tmp_path, **changes), model_class) < 1e-4


def test_llama3_rope_is_told_from_plain_rope(tmp_path):
    """Were the scaling dropped without a word, the logits would be those of the other model."""
    scaled = make_llama(tmp_path / "scaled", rope_parameters=LLAMA3_ROPE)
    plain = make_llama(tmp_path / "plain", rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    tokens = torch.arange(90).unsqueeze(0)
    with torch.no_grad():
        assert (bae_lens.load_model(scaled)(tokens) - bae_lens.load_model(plain)(tokens)).abs().max() > 1e-2


@pytest.mark.parametrize("model_class", [HookedTransformer, TransformerBridge])
def test_logits_of_the_embedded_llama_equal_hugging_faces(model_class):
    assert difference_from_hugging_face(demo_model_dir(), model_class) < 1e-4


@pytest.mark.parametrize("model_class", [HookedTransformer, TransformerBridge])
def test_story_llama_logits_equal_hugging_faces(data_dir, model_class):
    assert difference_from_hugging_face(data_dir / "story-llama", model_class) < 1e-4


def test_a_directory_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model: it has no config\.json"):
        bae_lens.load_model(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="holds no weights"):
        bae_lens.load_model(tmp_path)


def change_weights(directory, change):
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("model_class", [HookedTransformer, TransformerBridge])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), r"missing: .*up_proj"),
        (lambda w: w.update({"model.layers.1.mlp.third.weight": torch.zeros(2)}), r"unexpected: .*third"),
        (lambda w: w.update({"model.norm.weight": torch.zeros(3)}), r"weights are not those of its config\.json"),
    ],
    ids=["missing", "extra", "shape"],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(tmp_path, change, message, model_class):
    change_weights(make_llama(tmp_path), change)
    with pytest.raises(ValueError, match=message):
        bae_lens.load_model(tmp_path, model_class)


def test_truncated_weights_are_refused(tmp_path):
    make_llama(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-1000])
    with pytest.raises(ValueError, match="cannot be read"):
        bae_lens.load_model(tmp_path)


def test_a_name_that_is_nothing_names_its_neighbours():
    with pytest.raises(ValueError, match="neither a directory nor a name.*did you mean 'meta-llama/Llama-3.2-1B'"):
        bae_lens.load_model("meta-llama/Llama-3.2-1")
    with pytest.raises(ValueError, match="neither a directory nor a name"):
        bae_lens.load_model("runs/foo")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU (tests/SKIPPED.md)")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="sees no CUDA device"):
        bae_lens.load_model(demo_model_dir(), device="cuda")


def test_a_truncated_model_configuration_is_refused_and_its_file_named(tmp_path):
    make_llama(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text[:40])
    with pytest.raises(ValueError, match=r"config\.json is not whole"):
        bae_lens.load_model(tmp_path)


def test_a_path_that_is_not_there_is_not_taken_for_a_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="no directory"):
        bae_lens.load_model(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "message"), [({"model_type": "gpt2"}, "only 'llama'"), ({"attention_bias": True}, "attention_bias")]
)
def test_a_model_that_transformer_lens_llama_cannot_hold_is_refused(tmp_path, change, message):
    make_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        bae_lens.load_model(tmp_path)


def test_another_kind_of_rope_is_refused(tmp_path):
    make_llama(tmp_path, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0})
    with pytest.raises(ValueError, match="RoPE of type 'linear'"):
        bae_lens.load_model(tmp_path)


def test_an_unknown_hook_point_names_its_neighbours_on_every_kind_of_model(any_model):
    with pytest.raises(ValueError, match=r"no hook point 'blocks\.1\.hook_resd_pre'; did you mean 'blocks\.1\.hook_resid_pre'"):
        find_hook_point(any_model, "blocks.1.hook_resd_pre")


def test_widths_of_hook_points_are_known(any_model):
    assert hook_shape(any_model, "blocks.1.hook_resid_post") == (128,)
    assert hook_shape(any_model, "blocks.1.mlp.hook_post") == (512,)
