from contextlib import ExitStack

import numpy as np
import pytest
import torch
from embedded import HOOK
from sae_lens import StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig

import bae_lens
from bae_lens.activations.harvest import activations_at
from bae_lens.activations.models import find_hook_point

PROMPT = "Return the number of items in the list."


@pytest.fixture
def tokens(any_model):
    return any_model.to_tokens(PROMPT)


def run(model, tokens):
    with torch.no_grad():
        return model(tokens)


def with_residual(model, tokens, residual):
    """Logits of the model when its residual stream at the hook point is this."""
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=[(find_hook_point(model, HOOK).name, lambda tensor, hook: residual)])


def frequent(bae, residual, count=2):
    """Features that are on at some of these tokens and off at others."""
    share = (bae.encode(residual) > 0).float().mean((0, 1))
    return ((share > 0.1) & (share < 0.9)).nonzero().flatten()[:count].tolist()


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize(
    ("edit", "change"),
    [
        (2.5, lambda a: torch.full_like(a, 2.5)),
        (("add", -1.0), lambda a: torch.full_like(a, -1.0)),
        (("scale", 3.0), lambda a: 2 * a),
        (("clamp", 0.7), lambda a: 0.7 - a),
        ("ablate", lambda a: -a),
        ("flip", lambda a: 1 - 2 * a),
    ],
    ids=["number", "add", "scale", "clamp", "ablate", "flip"],
)
def test_an_edit_moves_the_residual_by_its_change_of_activation_times_the_decoder_row(
    any_model, tokens, make_bae, edit, change, c
):
    bae = make_bae(c)
    residual = activations_at(any_model, tokens, HOOK)
    one, two = frequent(bae, residual)
    acts = bae.encode(residual)
    moved = residual + change(acts[..., one]).unsqueeze(-1) * bae.W_dec[one] + 0.5 * bae.W_dec[two]
    with bae_lens.steer(any_model, bae, {one: edit, two: 0.5}) as steering:
        steered = run(any_model, tokens)
    torch.testing.assert_close(steered, with_residual(any_model, tokens, moved), atol=1e-4, rtol=1e-4)
    assert steering.changed[two] == tokens.shape[1]


@pytest.mark.parametrize("strength", [0.0, ("scale", 1.0), ("add", 0)])
def test_strength_zero_changes_the_logits_by_exactly_nothing(any_model, tokens, make_bae, strength):
    before = run(any_model, tokens)
    with bae_lens.steer(any_model, make_bae(), {3: strength}):
        assert torch.equal(run(any_model, tokens), before)


def test_after_the_block_or_an_exception_the_model_is_as_it_was(any_model, tokens, make_bae):
    before = run(any_model, tokens)
    with bae_lens.steer(any_model, make_bae(), {3: 2.0}):
        assert not torch.equal(run(any_model, tokens), before)
    assert torch.equal(run(any_model, tokens), before)
    with pytest.raises(ZeroDivisionError), bae_lens.steer(any_model, make_bae(), {3: 2.0}):
        raise ZeroDivisionError
    assert torch.equal(run(any_model, tokens), before)
    assert "generate" not in vars(any_model)
    assert not any(point.has_hooks() for point in any_model.hook_dict.values())


@pytest.mark.parametrize(
    ("positions", "chosen"),
    [("last", [-1]), ([0, 3], [0, 3]), (-2, [-2]), ([1, -1], [1, -1])],
)
def test_only_the_chosen_positions_are_steered(any_model, tokens, make_bae, positions, chosen):
    bae = make_bae()
    moved = activations_at(any_model, tokens, HOOK).clone()
    moved[:, chosen] += 2 * bae.W_dec[5]
    with bae_lens.steer(any_model, bae, {5: 2.0}, positions=positions):
        steered = run(any_model, tokens)
    torch.testing.assert_close(steered, with_residual(any_model, tokens, moved), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("positions", ["all", "last", "generated", [1, -2]])
def test_generation_is_the_same_with_and_without_a_kv_cache(any_model, tokens, make_bae, positions):
    bae = make_bae()
    on = frequent(bae, activations_at(any_model, tokens, HOOK))[0]
    generated = []
    for cache in (True, False):
        with bae_lens.steer(any_model, bae, {5: 6.0, on: ("scale", 4.0)}, positions=positions):
            generated.append(
                any_model.generate(tokens, max_new_tokens=10, do_sample=False, use_past_kv_cache=cache, verbose=False)
            )
    assert torch.equal(*generated)
    assert generated[0].shape[1] == tokens.shape[1] + 10


def test_generated_tokens_are_steered_and_the_prompt_is_not(any_model, tokens, make_bae):
    """Token by token by hand: the residual after the prompt moves, that of the prompt does not."""
    bae = make_bae()
    with bae_lens.steer(any_model, bae, {5: 9.0}, positions="generated"):
        found = any_model.generate(tokens, max_new_tokens=6, do_sample=False, verbose=False)
    so_far = tokens
    for _ in range(6):
        moved = activations_at(any_model, so_far, HOOK).clone()
        moved[:, tokens.shape[1] :] += 9 * bae.W_dec[5]
        so_far = torch.cat([so_far, with_residual(any_model, so_far, moved)[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, so_far)


def test_each_forward_pass_and_each_generation_has_a_prompt_of_its_own(any_model, tokens, make_bae):
    bae = make_bae()
    with bae_lens.steer(any_model, bae, {5: 3.0}, positions="last") as steering:
        first = any_model.generate(tokens, max_new_tokens=3, do_sample=False, verbose=False)
        assert torch.equal(any_model.generate(tokens, max_new_tokens=3, do_sample=False, verbose=False), first)
        longer = torch.cat([tokens, tokens[:, 1:]], 1)
        seen = steering.changed[5]
        run(any_model, longer)
        run(any_model, tokens)
        assert steering.changed[5] == seen + 2


def test_a_cache_that_the_user_keeps_is_counted(model, make_bae):
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

    bae, tokens = make_bae(), model.to_tokens(PROMPT)
    with bae_lens.steer(model, bae, {5: 4.0}, positions=[2, 4]):
        whole = run(model, tokens)
        cache = TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", 1)
        with torch.no_grad():
            model(tokens[:, :6], past_kv_cache=cache)
            rest = model(tokens[:, 6:], past_kv_cache=cache)
    torch.testing.assert_close(rest, whole[:, 6:], atol=1e-4, rtol=1e-4)


def test_relative_strengths_are_multiples_of_the_mean_norm_along_the_row(any_model, tokens, make_bae):
    bae = make_bae()
    residual = activations_at(any_model, tokens, HOOK)
    direction = bae.W_dec[5] / bae.W_dec[5].norm()
    for known in (None, 7.0):
        bae.cfg.metadata.mean_activation_norm = known
        norm = known or residual[:, 1:].norm(dim=-1).mean()
        with bae_lens.steer(any_model, bae, {5: 0.5}, relative=True):
            steered = run(any_model, tokens)
        moved = with_residual(any_model, tokens, residual + 0.5 * norm * direction)
        torch.testing.assert_close(steered, moved, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attached", [False, True])
def test_the_unit_of_relative_strengths_is_the_residual_norm_attached_or_not(any_model, tokens, make_bae, attached):
    bae = make_bae()
    norm = activations_at(any_model, tokens, HOOK)[:, 1:].norm(dim=-1).mean().item()
    with ExitStack() as stack:
        if attached:
            stack.enter_context(bae_lens.attach(any_model, bae))
        _, cache = any_model.run_with_cache(tokens)
        before = cache[f"{HOOK}.hook_sae_output" if attached else find_hook_point(any_model, HOOK).name][0, -1]
        with bae_lens.steer(any_model, bae, {5: 0.5}, relative=True):
            _, cache = any_model.run_with_cache(tokens)
        after = cache[f"{HOOK}.hook_sae_output" if attached else find_hook_point(any_model, HOOK).name][0, -1]
    assert (after - before).norm().item() == pytest.approx(0.5 * norm, rel=1e-3)


def test_numpy_and_torch_numbers_are_numbers(model, make_bae):
    tokens, bae = model.to_tokens(PROMPT), make_bae()
    with bae_lens.steer(model, bae, {5: 2.0}, positions=[1, 3]):
        expected = run(model, tokens)
    feature, strength = torch.tensor([5, 7]).argmin(), np.float32(2.0)
    for index in (np.int64(5), torch.tensor(5)):
        for positions in (np.array([1, 3]), torch.tensor([1, 3]), (np.int64(1), 3)):
            with bae_lens.steer(model, bae, {index: strength}, positions=positions):
                assert torch.equal(run(model, tokens), expected)
    assert feature == 0


def test_positions_that_padding_makes_ambiguous_are_refused(any_model, make_bae):
    short, long = any_model.to_tokens("Return the list."), any_model.to_tokens("Return the number of items in the list.")
    pad = any_model.tokenizer.pad_token_id
    missing = torch.full((1, long.shape[1] - short.shape[1]), pad)
    left, right = torch.cat([torch.cat([missing, short], 1), long]), torch.cat([torch.cat([short, missing], 1), long])
    for batch, positions in ((right, "last"), (right, [-2]), (left, [1])):
        with (
            pytest.raises(ValueError, match="padded on the"),
            bae_lens.steer(any_model, make_bae(), {5: 1.0}, positions=positions),
        ):
            run(any_model, batch)
    for batch, positions in ((left, "last"), (left, [-2]), (right, [1]), (left, "all")):
        with bae_lens.steer(any_model, make_bae(), {5: 1.0}, positions=positions):
            run(any_model, batch)


@pytest.mark.parametrize(
    "make", [lambda: StandardSAE(StandardSAEConfig(128, 32)), lambda: TopKSAE(TopKSAEConfig(128, 32, k=4))]
)
def test_any_saelens_sae_steers(any_model, tokens, make):
    torch.manual_seed(0)
    sae = make()
    sae.cfg.metadata.hook_name = HOOK
    residual = activations_at(any_model, tokens, HOOK)
    feature = int(sae.encode(residual)[0, 1:].sum(0).argmax())
    moved = residual - sae.encode(residual)[..., feature, None] * sae.W_dec[feature]
    with bae_lens.steer(any_model, sae, {feature: "ablate"}):
        steered = run(any_model, tokens)
    torch.testing.assert_close(steered, with_residual(any_model, tokens, moved.detach()), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="'flip' turns bits round"), bae_lens.steer(any_model, sae, {0: "flip"}):
        pass


def test_where_the_bae_is_attached_the_splice_is_steered(any_model, tokens, make_bae):
    bae = make_bae()
    residual = activations_at(any_model, tokens, HOOK)
    features = bae.encode(residual).detach().clone()
    features[..., 5] += 2
    features[..., 6] = 0
    with bae_lens.attach(any_model, bae), bae_lens.steer(any_model, bae, {5: 2.0, 6: "ablate"}):
        steered = run(any_model, tokens)
    torch.testing.assert_close(steered, with_residual(any_model, tokens, bae.decode(features)), atol=1e-4, rtol=1e-4)
    with bae_lens.attach(any_model, bae):
        with pytest.raises(ValueError, match="another SAE is attached"), bae_lens.steer(any_model, make_bae(), {5: 2.0}):
            pass
        run(any_model, tokens)


def test_a_folded_decoder_norm_does_not_change_what_flip_and_ablate_do(any_model, tokens, make_bae):
    bae, folded = make_bae(), make_bae()
    folded.fold_W_dec_norm()
    for edit in ("flip", "ablate"):
        logits = []
        for sae in (bae, folded):
            feature = frequent(bae, activations_at(any_model, tokens, HOOK))[0]
            with bae_lens.steer(any_model, sae, {feature: edit}):
                logits.append(run(any_model, tokens))
        torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)


def test_a_steering_that_never_fires_or_changes_nothing_is_an_error(any_model, tokens, make_bae):
    bae = make_bae()
    with pytest.raises(RuntimeError, match="never fired"), bae_lens.steer(any_model, bae, {5: 1.0}):
        pass
    never = int((bae.encode(activations_at(any_model, tokens, HOOK)) > 0).any(1)[0].logical_not().nonzero()[0])
    with (
        pytest.raises(RuntimeError, match=rf"changed nothing.*{never} \(ablate\)"),
        bae_lens.steer(any_model, bae, {never: "ablate"}),
    ):
        run(any_model, tokens)
    with pytest.raises(RuntimeError, match="changed nothing"), bae_lens.steer(any_model, bae, {5: 1e-12}):
        run(any_model, tokens)
    bae.W_dec.data[5] = 0
    with pytest.raises(ValueError, match="row of zeros"), bae_lens.steer(any_model, bae, {5: 1.0}, relative=True):
        pass


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ({48: 1.0}, IndexError, "features 0 to 47"),
        ({-1: 1.0}, IndexError, "features 0 to 47"),
        ({1: "ablat"}, ValueError, "unknown operation 'ablat'; did you mean 'ablate'"),
        ({1: ("skale", 2.0)}, ValueError, "did you mean 'scale'"),
        ({1: "scale"}, ValueError, "needs a value"),
        ({1: ("ablate", 2.0)}, ValueError, "takes no value"),
        ({1: 1e300}, ValueError, "finite"),
        ({True: 1.0}, ValueError, "whole number"),
        ({"1": 1.0}, ValueError, "whole number"),
        ({1: float("nan")}, ValueError, "finite"),
        ({1: ("clamp", float("inf"))}, ValueError, "finite"),
        ({}, ValueError, "no feature given"),
    ],
)
def test_edits_that_make_no_sense_are_refused_at_the_door(model, make_bae, features, error, message):
    with pytest.raises(error, match=message), bae_lens.steer(model, make_bae(), features):
        raise AssertionError("the block must not be entered")


def test_positions_out_of_range_or_unknown_are_refused(any_model, tokens, make_bae):
    n = tokens.shape[1]
    for position in (n, -n - 1):
        with (
            pytest.raises(IndexError, match=f"the prompt has {n} tokens"),
            bae_lens.steer(any_model, make_bae(), {5: 1.0}, positions=position),
        ):
            run(any_model, tokens)
    with (
        pytest.raises(ValueError, match="did you mean 'last'"),
        bae_lens.steer(any_model, make_bae(), {5: 1.0}, positions="lst"),
    ):
        pass
    with pytest.raises(ValueError, match="positions must be"), bae_lens.steer(any_model, make_bae(), {5: 1.0}, positions=[]):
        pass


def test_an_unknown_hook_point_is_refused(any_model, make_bae):
    with (
        pytest.raises(ValueError, match="did you mean"),
        bae_lens.steer(any_model, make_bae(), {5: 1.0}, hook_name="blocks.1.hook_resid_prr"),
    ):
        pass
