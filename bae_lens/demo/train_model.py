"""Trains the embedded tiny Llama on the embedded corpus and prints its held-out loss beside a unigram's and a bigram's.

    python -m bae_lens.demo.train_model --out bae_lens/demo/llama      # about 20 minutes on 2 cores

Kept so that anyone can see where the weights in `bae_lens/demo/llama` come from, and make them again.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.demo.corpus import python_docs

VOCABULARY = 2048
CONTEXT = 256
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"


def train_tokenizer(texts: list[str], out: Path) -> None:
    """Byte-level BPE that begins every text with BOS, as Llama's tokenizers do; saved in Hugging Face's format."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[BOS, EOS], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS)
    fast.model_max_length = CONTEXT
    fast.save_pretrained(out)


def windows(texts: list[str], tokenizer, context: int) -> Int[Tensor, "window pos"]:
    """Each text cut into windows of `context` tokens that begin with BOS; a last, shorter window is padded with EOS."""
    rows = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, len(ids), context - 1):
            piece = ids[start : start + context - 1]
            rows.append([tokenizer.bos_token_id, *piece, *[tokenizer.eos_token_id] * (context - 1 - len(piece))])
    return torch.tensor(rows)


def ngram_losses(
    train: Int[Tensor, "window pos"], held_out: Int[Tensor, "window2 pos2"], pad: int, discount: float = 0.75
) -> tuple[float, float]:
    """Held-out nats a token of a unigram and of an absolute-discounting bigram that backs off to it (Ney et al., 1994)."""
    counts = torch.zeros(VOCABULARY, VOCABULARY, dtype=torch.float64)
    before, after = _pairs(train, pad)
    counts.index_put_((before, after), torch.ones(len(after), dtype=torch.float64), accumulate=True)
    unigram = (counts.sum(0) + 0.5) / (counts.sum() + 0.5 * VOCABULARY)
    total = counts.sum(1, keepdim=True).clamp_min(1)
    backoff = torch.where(counts.sum(1, keepdim=True) > 0, discount * (counts > 0).sum(1, keepdim=True) / total, 1.0)
    bigram = (counts - discount).clamp_min(0) / total + backoff * unigram
    before, after = _pairs(held_out, pad)
    return -unigram[after].log().mean().item(), -bigram[before, after].log().mean().item()


def _pairs(tokens: Int[Tensor, "window pos"], pad: int) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    before, after = tokens[:, :-1].flatten(), tokens[:, 1:].flatten()
    return before[after != pad], after[after != pad]


@torch.no_grad()
def model_loss(model, tokens: Int[Tensor, "window pos"], pad: int, batch: int = 32) -> float:
    """Mean held-out nats a token of a Hugging Face causal language model, padding left out."""
    total, count = 0.0, 0
    for rows in tokens.split(batch):
        logits: Float[Tensor, "window pos vocab"] = model(rows).logits[:, :-1].float()
        keep = rows[:, 1:] != pad
        total += torch.nn.functional.cross_entropy(logits[keep], rows[:, 1:][keep], reduction="sum").item()
        count += int(keep.sum())
    return total / count


def new_llama(vocabulary: int, context: int, *, width: int, layers: int, key_value_heads: int, seed: int = 0):
    """A small untrained Llama of four heads, for tokens of `train_tokenizer`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def descend(loss: Float[Tensor, ""], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One step down a loss, with the gradient's norm clipped at 1."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def train_model(train: Int[Tensor, "window pos"], pad: int, steps: int, batch: int, seed: int = 0):
    """A four-layer Llama with grouped-query attention, trained with AdamW, warm-up and cosine decay."""
    model = new_llama(VOCABULARY, CONTEXT, width=128, layers=4, key_value_heads=2, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    batches = _batches(train, batch, torch.Generator().manual_seed(seed))
    progress = tqdm(range(steps), desc="tiny Llama")
    for step in progress:
        rate = 4e-3 * min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimizer.param_groups[0]["lr"] = rate
        rows = next(batches)
        loss = torch.nn.functional.cross_entropy(
            model(rows).logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten(), ignore_index=pad
        )
        descend(loss, model, optimizer)
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


def _batches(rows: Int[Tensor, "window pos"], batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(len(rows), generator=generator)
        yield from (rows[order[i : i + batch]] for i in range(0, len(rows) - batch + 1, batch))


def main() -> None:
    """Trains tokenizer and model, prints the losses, writes both."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for weights and tokenizer")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=16, help=f"windows of {CONTEXT} tokens a step")
    args = parser.parse_args()

    corpus = python_docs()
    train_tokenizer(corpus.train, args.out)
    tokenizer = AutoTokenizer.from_pretrained(args.out)
    train, held_out = (windows(texts, tokenizer, CONTEXT) for texts in (corpus.train, corpus.held_out))
    pad = tokenizer.pad_token_id
    print(f"{int((train != pad).sum())} training tokens, {int((held_out != pad).sum())} held out")
    model = train_model(train, pad, args.steps, args.batch)
    unigram, bigram = ngram_losses(train, held_out, pad)
    print(f"held-out nats a token: model {model_loss(model, held_out, pad):.3f}, bigram {bigram:.3f}, unigram {unigram:.3f}")
    model.half().save_pretrained(args.out)


if __name__ == "__main__":
    main()
