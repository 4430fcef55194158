import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs
from bae_lens.demo.train_model import CONTEXT, model_loss, ngram_losses, windows


def test_the_embedded_model_is_a_small_llama_as_promised():
    config = json.loads((demo_model_dir() / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(demo_model_dir())
    assert config["model_type"] == "llama"
    assert config["num_hidden_layers"] >= 4
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert config["vocab_size"] >= 2048
    assert 1e6 <= sum(p.numel() for p in model.parameters()) <= 3e6
    assert sum(f.stat().st_size for f in demo_model_dir().iterdir()) < 8e6


def test_on_held_out_modules_it_beats_a_bigram_by_a_third_of_a_nat():
    corpus = python_docs()
    tokenizer = AutoTokenizer.from_pretrained(demo_model_dir())
    train, held_out = (windows(texts, tokenizer, CONTEXT) for texts in corpus)
    unigram, bigram = ngram_losses(train, held_out, tokenizer.pad_token_id)
    model = AutoModelForCausalLM.from_pretrained(demo_model_dir(), dtype=torch.float32).eval()
    loss = model_loss(model, held_out, tokenizer.pad_token_id)
    assert loss <= bigram - 0.35
    assert bigram < unigram - 0.5


def test_the_bigram_is_a_distribution_and_its_loss_that_of_a_slow_count():
    tokens = torch.tensor([[0, 5, 6, 5, 6], [0, 5, 7, 1, 1]])
    unigram, bigram = ngram_losses(tokens, torch.tensor([[0, 5, 6, 9]]), pad=1)
    pairs = [(0, 5), (5, 6), (6, 5), (5, 6), (0, 5), (5, 7)]
    p1 = {t: (sum(b == t for _, b in pairs) + 0.5) / (6 + 0.5 * 2048) for t in (5, 6, 9)}

    def p2(a, b):
        seen = [y for x, y in pairs if x == a]
        if not seen:
            return p1[b]
        return max(seen.count(b) - 0.75, 0) / len(seen) + 0.75 * len(set(seen)) / len(seen) * p1[b]

    logs = [torch.tensor(p2(a, b)).double().log().item() for a, b in ((0, 5), (5, 6), (6, 9))]
    assert bigram == pytest.approx(-sum(logs) / 3, rel=1e-6)
    assert unigram == pytest.approx(-sum(torch.tensor(p1[t]).double().log().item() for t in (5, 6, 9)) / 3, rel=1e-6)
