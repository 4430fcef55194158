import pytest
import torch
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel

from bae_lens.activations.hugging_face import load_for_harvest, load_hugging_face, suits_hugging_face
from bae_lens.activations.readers import expand_hooks, hook_widths, reader_of
from bae_lens.demo import demo_model_dir

LAYERS = 4
EVERYWHERE = [f"blocks.{layer}.hook_resid_{part}" for layer in range(LAYERS) for part in ("pre", "mid", "post")]
INNER = [f"blocks.{layer}.{name}" for layer in range(LAYERS) for name in ("hook_attn_out", "hook_mlp_out")]


@pytest.fixture(scope="module")
def hugging_face():
    return load_hugging_face(demo_model_dir())


def read(model, windows, hooks):
    keep = torch.arange(windows.tokens.shape[1]) < windows.lengths.unsqueeze(1)
    return reader_of(model).read(windows.tokens, keep, hooks)


def test_every_kind_of_model_gives_equal_vectors_at_every_layer_the_last_included(models, hugging_face, windows):
    """The reference is each window alone through Hugging Face with its own hidden_states, which are right but for the last."""
    found = read(hugging_face, windows, [*EVERYWHERE, *INNER, "hook_embed"])
    for kind in (HookedTransformer, TransformerBridge):
        other = read(models(kind), windows, [*EVERYWHERE, *INNER, "hook_embed"])
        for name, vectors in found.items():
            torch.testing.assert_close(other[name], vectors, atol=1e-4, rtol=1e-4)
    states = [
        hugging_face(tokens[:length].unsqueeze(0), output_hidden_states=True).hidden_states
        for tokens, length in zip(windows.tokens, windows.lengths, strict=True)
    ]
    for layer in range(LAYERS):
        expected = torch.cat([state[layer][0] for state in states])
        torch.testing.assert_close(found[f"blocks.{layer}.hook_resid_pre"], expected, atol=1e-4, rtol=1e-4)
    after_the_norm = torch.cat([state[LAYERS][0] for state in states])
    last = found[f"blocks.{LAYERS - 1}.hook_resid_post"]
    assert not torch.allclose(last, after_the_norm, atol=1e-2)
    torch.testing.assert_close(hugging_face.model.norm(last), after_the_norm, atol=1e-4, rtol=1e-4)


def test_the_forward_pass_ends_after_the_last_hook_point(models, hugging_face, windows):
    ran = []
    layers = [*models(HookedTransformer).blocks, *hugging_face.model.layers, models(HookedTransformer).unembed]
    handles = [layer.register_forward_pre_hook(lambda module, args: ran.append(module)) for layer in layers]
    for model in (models(HookedTransformer), hugging_face):
        read(model, windows, ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre"])
    for handle in handles:
        handle.remove()
    assert ran == [*models(HookedTransformer).blocks[:3], *hugging_face.model.layers[:3]]


def test_reading_leaves_no_hook_behind(hugging_face, windows):
    def hooks():  # transformers leaves some of its own where hidden states were asked for
        return [hook for m in hugging_face.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]

    before = hooks()
    read(hugging_face, windows, EVERYWHERE)
    unknown = torch.full((1, 3), 10**6)
    with pytest.raises(IndexError):
        reader_of(hugging_face).read(unknown, torch.ones(1, 3, dtype=torch.bool), EVERYWHERE)
    assert hooks() == before


def test_patterns_name_hook_points_in_the_order_of_the_forward_pass(model, hugging_face):
    known = reader_of(model).hook_names()
    assert expand_hooks(["blocks.*.hook_resid_pre"], known) == [f"blocks.{layer}.hook_resid_pre" for layer in range(LAYERS)]
    assert expand_hooks(["blocks.2.hook_resid_*", "blocks.0.hook_resid_pre"], known)[0] == "blocks.0.hook_resid_pre"
    assert expand_hooks(["blocks.*.hook_resid_*"], reader_of(hugging_face).hook_names()) == EVERYWHERE


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("blocks.*.hook_resid_prr", r"did you mean 'blocks\.\d\.hook_resid_pre'"), ("blocks.9.hook_resid_pre", "did you mean")],
)
def test_a_pattern_that_matches_nothing_is_refused_with_near_names(model, hugging_face, pattern, message):
    for either in (model, hugging_face):
        with pytest.raises(ValueError, match=message):
            expand_hooks([pattern], reader_of(either).hook_names())
    with pytest.raises(ValueError, match="no hook point given"):
        expand_hooks([], reader_of(model).hook_names())


def test_heads_are_flattened_and_what_is_no_vector_a_token_is_refused(model):
    assert hook_widths(reader_of(model), ["blocks.1.attn.hook_z", "blocks.1.mlp.hook_post"]) == {
        "blocks.1.attn.hook_z": model.cfg.n_heads * model.cfg.d_head,
        "blocks.1.mlp.hook_post": model.cfg.d_mlp,
    }
    with pytest.raises(ValueError, match="not one vector a token"):
        hook_widths(reader_of(model), ["blocks.1.attn.hook_pattern"])
    with pytest.raises((ValueError, AssertionError), match=r"does not fire|use_attn_result"):
        hook_widths(reader_of(model), ["blocks.1.attn.hook_result"])


def test_the_fastest_kind_that_has_the_hook_points_is_the_default():
    assert suits_hugging_face(["hook_embed", "blocks.*.hook_resid_*", "blocks.1.hook_mlp_out"])
    for pattern in ("blocks.0.*", "blocks.*.attn.hook_z", "*", "ln_final.hook_normalized"):
        assert not suits_hugging_face([pattern])
    for pattern, kind in (("blocks.*.hook_resid_pre", "Hugging Face"), ("blocks.1.attn.hook_z", "HookedTransformer")):
        assert reader_of(load_for_harvest(demo_model_dir(), [pattern])).kind == kind
    with pytest.raises(ValueError, match="unknown kind of model 'fastest'"):
        load_for_harvest(demo_model_dir(), ["hook_embed"], via="fastest")


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"blocks in model.layers is expected, got Linear"):
        reader_of(torch.nn.Linear(2, 2))


def test_a_model_that_only_a_bridge_reads_is_refused_with_the_way_to_read_it(tmp_path):
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=50, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="only 'llama' is read as a HookedTransformer .*--via bridge"):
        load_for_harvest(tmp_path / "gpt2", ["blocks.*.hook_resid_*"])
    with pytest.raises(TypeError, match=r"got GPT2LMHeadModel; .*--via bridge"):
        reader_of(load_for_harvest(tmp_path / "gpt2", ["blocks.*.hook_resid_*"], via="hugging_face"))
    bridge = load_for_harvest(tmp_path / "gpt2", ["blocks.*.hook_resid_*"], via="bridge")
    assert "blocks.1.hook_resid_post" in expand_hooks(["blocks.*.hook_resid_*"], reader_of(bridge).hook_names())
