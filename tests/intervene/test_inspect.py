import json

import pytest
import torch
from embedded import HOOK
from sae_lens import StandardSAE, StandardSAEConfig

import bae_lens
from bae_lens.activations.harvest import activations_at

PROMPT = "Return <b>bold</b> & the 'rest' of the list."


@pytest.fixture
def bae(make_bae, vectors):
    bae = make_bae()
    bae.b_enc.data[:3] = 2.0
    bae.estimate_prior(vectors)
    return bae


def test_each_token_shows_its_burstiest_features_strongest_first(any_model, bae):
    found = bae_lens.inspect(any_model, bae, PROMPT, k=3)
    tokens = any_model.to_tokens(PROMPT)
    residual = activations_at(any_model, tokens, HOOK)[0]
    burstiness, bits = bae.burstiness(residual), bae.bits(residual)
    assert [t.token for t in found.tokens] == any_model.to_str_tokens(tokens[0])
    assert found.by == "burstiness"
    for position, token in enumerate(found.tokens):
        ranked = sorted(range(48), key=lambda j: -burstiness[position, j].item())
        expected = [burstiness[position, j].item() for j in ranked if burstiness[position, j] > -1][:3]
        assert [r.score for r in token.readings] == pytest.approx(expected)
        for reading in token.readings:
            assert reading.activation == bits[position, reading.feature].item()


def test_the_table_has_a_head_and_a_line_a_token(model, bae):
    head, *lines = str(bae_lens.inspect(model, bae, "Return", k=2)).splitlines()
    assert head.split(maxsplit=2) == ["pos", "token", f"features by burstiness at {HOOK}"]
    assert [line.split()[0] for line in lines] == ["0", "1", "2"][: len(lines)]
    assert len(lines) == model.to_tokens("Return").shape[1]


def test_a_feature_that_is_off_where_it_is_usually_on_is_marked(any_model, bae):
    """Were off and on shown alike, "fires on" and "is missing from" would be confused."""
    found = bae_lens.inspect(any_model, bae, PROMPT, k=48)
    off = [(t.position, r.feature) for t in found.tokens for r in t.readings if r.activation == 0]
    assert off
    assert f"-{off[0][1]} (" in str(found).splitlines()[1 + off[0][0]]


def test_another_sae_is_read_by_activation(any_model):
    torch.manual_seed(0)
    sae = StandardSAE(StandardSAEConfig(128, 32))
    sae.cfg.metadata.hook_name = HOOK
    found = bae_lens.inspect(any_model, sae, PROMPT, k=2)
    acts = sae.encode(activations_at(any_model, any_model.to_tokens(PROMPT), HOOK))[0]
    assert found.by == "activation"
    for row, token in zip(acts, found.tokens, strict=True):
        assert [r.score for r in token.readings] == pytest.approx(row.topk(2).values[row.topk(2).values > 0].tolist())


def test_the_html_escapes_the_text_and_the_json_is_plain(model, bae):
    page = bae_lens.inspect(model, bae, "<script>alert('x')</script>")._repr_html_()
    assert "<script" not in page
    assert "&lt;" in page
    found = bae_lens.inspect(model, bae, PROMPT)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["hook_name"] == HOOK


def test_what_cannot_be_inspected_is_refused(model, bae, make_bae):
    with pytest.raises(ValueError, match="estimate_prior"):
        bae_lens.inspect(model, make_bae(), PROMPT)
    with pytest.raises(ValueError, match="did you mean"):
        bae_lens.inspect(model, bae, PROMPT, hook_name="blocks.1.hook_resid_prr")
    with pytest.raises(ValueError, match="width 512"):
        bae_lens.inspect(model, bae, PROMPT, hook_name="blocks.1.mlp.hook_post")
    with pytest.raises(ValueError, match="one prompt at a time"):
        bae_lens.inspect(model, bae, torch.zeros(2, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="prompt is empty"):
        bae_lens.inspect(model, bae, "")
    with torch.no_grad(), bae_lens.attach(model, bae):
        model(PROMPT)
        with pytest.raises(ValueError, match="would read its reconstruction"):
            bae_lens.inspect(model, bae, PROMPT)
    with pytest.raises(ValueError, match="k must be"):
        bae_lens.inspect(model, bae, PROMPT, k=0)
