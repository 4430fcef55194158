"""Does a task vector made of a BAE's features carry a task (section 5.4)? On a tiny Llama that learns tasks in context.

    python benchmarks/taskvec.py                       # about six minutes on 2 cores; what is there already is used again
    python benchmarks/taskvec.py --json out.json

A world of made-up words and eight tasks, each a fixed mapping from words to four labels. A Llama of 0.3 M parameters is trained on
lines of one task each until it reads the task off the examples: with 8 shots it answers well, with none it cannot know which
task is meant. A BAE and a TopK SAE are trained at one hook point on the same activations; then, for each task, the mean codes of
8-shot prompts minus those of 0-shot prompts, the largest differences kept, decoded, go into the last token of 0-shot prompts that
took no part. The strength is chosen on half of these for each vector, and the accuracy is of the other half.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from tqdm.auto import tqdm

import bae_lens
from bae_lens.activations.prompts import Example, Task, Template, icl_prompt
from bae_lens.demo.train_model import train_tokenizer

TASKS = 4
WORDS = "apple bread chair drum engine flute grape hammer iron jacket kettle lemon mirror needle onion piano".split()
LABELS = "ant bear crow deer eel fox goat hare ibex jay kite lion mole newt owl pig".split()
TEMPLATE = Template(text="", label="->", end="\n")
SHOTS = 8


def world(seed: int = 0) -> list[Task]:
    """Four tasks over the same words, each of which gives every word another label of its own."""
    random = torch.Generator().manual_seed(seed)
    tasks = []
    for number in range(TASKS):
        order = torch.randperm(len(LABELS), generator=random).tolist()
        examples = [Example(word, LABELS[i]) for word, i in zip(WORDS, order, strict=True)]
        tasks.append(Task(f"task{number}", examples, examples, sorted(LABELS)))
    return tasks


def line(task: Task, shots: int, random: torch.Generator) -> str:
    """One text: so many examples of a task and one more, answered."""
    chosen = torch.randperm(len(task.queries), generator=random)[: shots + 1].tolist()
    *shown, asked = (task.queries[i] for i in chosen)
    return f"{icl_prompt(shown, asked, TEMPLATE)} {asked.label}"


def train_llama(tasks: list[Task], out: Path, steps: int, target: float, batch: int = 64, shots: int = SHOTS) -> None:
    """A three-layer Llama, trained on the labels only, until the last label of a line is right so often."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    random = torch.Generator().manual_seed(0)
    texts = [line(tasks[i % TASKS], shots, random) for i in range(400)]
    train_tokenizer(texts, out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    label_ids = torch.tensor([tokenizer(f" {label}", add_special_tokens=False)["input_ids"] for label in LABELS]).flatten()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            initializer_range=0.05,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05)
    progress, right = tqdm(range(steps), desc="tiny Llama"), 0.0
    for step in progress:
        optimizer.param_groups[0]["lr"] = 3e-3 * min((step + 1) / 100, 1.0, 0.02 + (1 - step / steps) / 0.3)
        lines = [line(tasks[int(torch.randint(TASKS, (), generator=random))], shots, random) for _ in range(batch)]
        rows = torch.tensor([[0, *ids] for ids in tokenizer(lines, add_special_tokens=False)["input_ids"]])
        logits = model(rows).logits[:, :-1]
        asked = torch.isin(rows[:, 1:], label_ids)
        loss = torch.nn.functional.cross_entropy(logits[asked], rows[:, 1:][asked])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = 0.98 * right + 0.02 * float((logits[:, -1].argmax(-1) == rows[:, -1]).float().mean())
        if step % 50 == 0:
            print(step, f"{loss.item():.3f} {right / (1 - 0.98 ** (step + 1)):.3f}", flush=True)
        if right > target:
            break
    model.eval().save_pretrained(out)
