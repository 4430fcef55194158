"""A small world whose tasks are learnt in context: a tiny Llama that reads a task off its demonstrations, in CPU seconds.

Sixteen words and four tasks, each of which gives every word another label. A Llama of 0.2 M parameters is trained on texts of
one task each until it reads the task off the examples: with 8 shots it answers well, with none it cannot know which task is
meant. Words that say nothing can stand before each word, so that texts differ in more than what the task asks for.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from bae_lens.activations.prompts import Example, Task, Template, icl_prompt
from bae_lens.demo.train_model import descend, new_llama, train_tokenizer
from bae_lens.files import new_directory, write_text

TASKS, SHOTS = 4, 8
WORDS = [
    *("apple", "bread", "chair", "drum", "engine", "flute", "grape", "hammer"),
    *("iron", "jacket", "kettle", "lemon", "mirror", "needle", "onion", "piano"),
]
LABELS = [
    *("ant", "bear", "crow", "deer", "eel", "fox", "goat", "hare"),
    *("ibex", "jay", "kite", "lion", "mole", "newt", "owl", "pig"),
]
FILLERS = [
    *("old", "red", "big", "cold", "dry", "fair", "good", "high", "icy", "just", "kind", "low", "mild", "new", "odd", "plain"),
    *(
        "quick",
        "raw",
        "soft",
        "tall",
        "ugly",
        "vast",
        "warm",
        "young",
        "blue",
        "dark",
        "even",
        "full",
        "grey",
        "huge",
        "long",
        "wet",
    ),
]
PLAIN = Template(text="", label="->", end="\n")


class World(NamedTuple):
    """How its texts are written."""

    tasks: list[Task]
    """Of bare words; queries and demonstrations are the same."""
    template: Template = PLAIN
    fillers: int = 0
    """Words that say nothing before each word."""

    def example(self, task: Task, place: int, random: torch.Generator) -> Example:
        """One of a task's words, with fillers before it."""
        word, label = task.queries[place]
        drawn = torch.randint(len(FILLERS), (self.fillers,), generator=random).tolist()
        return Example(" ".join([*(FILLERS[i] for i in drawn), word]), label)

    def line(self, task: Task, shots: int, random: torch.Generator) -> str:
        """One text: so many examples of a task and one more, answered."""
        chosen = torch.randperm(len(task.queries), generator=random)[: shots + 1].tolist()
        *shown, asked = (self.example(task, i, random) for i in chosen)
        return f"{icl_prompt(shown, asked, self.template)} {asked.label}"

    def lines(self, count: int, random: torch.Generator) -> list[str]:
        """Texts of every task and of 0 to 8 examples before the last, in turn."""
        return [self.line(self.tasks[i % TASKS], i // TASKS % (SHOTS + 1), random) for i in range(count)]


def new_world(seed: int = 0, template: Template = PLAIN, fillers: int = 0) -> World:
    """Four tasks over the same words, each of which gives every word another label of its own."""
    random = torch.Generator().manual_seed(seed)
    tasks = []
    for number in range(TASKS):
        order = torch.randperm(len(LABELS), generator=random).tolist()
        examples = [Example(word, LABELS[i]) for word, i in zip(WORDS, order, strict=True)]
        tasks.append(Task(f"task{number}", examples, examples, sorted(LABELS)))
    return World(tasks, template, fillers)


def divided(task: Task, seed: int) -> Task:
    """The task with half of its words as demonstrations and the others as queries."""
    order = torch.randperm(len(WORDS), generator=torch.Generator().manual_seed(seed)).tolist()
    shown, asked = ([task.queries[i] for i in order[side : side + SHOTS]] for side in (0, SHOTS))
    return task._replace(demonstrations=shown, queries=asked)


def write_task(world: World, task: Task, out: Path, count: int, seed: int = 0) -> None:
    """Writes queries.jsonl and demonstrations.jsonl, so many distinct texts at most in each; no word is in both."""
    random = torch.Generator().manual_seed(seed)
    parts = divided(task, seed)
    for name, examples in (("queries", parts.queries), ("demonstrations", parts.demonstrations)):
        part = task._replace(queries=examples)
        found = dict.fromkeys(world.example(part, i % len(examples), random) for i in range(count))
        write_text(out / f"{name}.jsonl", "".join(json.dumps(example._asdict()) + "\n" for example in found))


def train_llama(world: World, out: Path, *, steps: int = 3000, target: float = 0.93, batch: int = 64) -> float:
    """A three-layer Llama, trained on the labels only, until the last label of a line is right so often; saved whole.

    Returns:
        How often it was at the end, over the last fifty batches or so.
    """
    random = torch.Generator().manual_seed(0)
    with new_directory(out) as directory:
        train_tokenizer([world.line(world.tasks[i % TASKS], SHOTS, random) for i in range(400)], directory)
        model, right = _fit(world, directory, random, steps, target, batch)
        model.eval().save_pretrained(directory)
    return right


def _fit(world: World, tokenizer_dir: Path, random: torch.Generator, steps: int, target: float, batch: int):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    label_ids = torch.tensor([tokenizer(f" {label}", add_special_tokens=False)["input_ids"] for label in LABELS]).flatten()
    text = world.line(world.tasks[0], SHOTS, torch.Generator().manual_seed(0))  # all are as long
    longest = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    model = new_llama(len(tokenizer), max(64, longest + 8), width=64, layers=3, key_value_heads=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05)
    progress, right = tqdm(range(steps), desc="tiny Llama"), 0.0
    for step in progress:
        optimizer.param_groups[0]["lr"] = 3e-3 * min((step + 1) / 100, 1.0, 0.02 + (1 - step / steps) / 0.3)
        lines = [world.line(world.tasks[int(torch.randint(TASKS, (), generator=random))], SHOTS, random) for _ in range(batch)]
        rows = torch.tensor([[0, *ids] for ids in tokenizer(lines, add_special_tokens=False)["input_ids"]])
        asked = torch.isin(rows[:, 1:], label_ids)
        logits = model(rows).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits[asked], rows[:, 1:][asked])
        descend(loss, model, optimizer)
        right = 0.98 * right + 0.02 * float((logits[:, -1].argmax(-1) == rows[:, -1]).float().mean())
        progress.set_postfix(loss=f"{loss.item():.3f}", right=f"{right:.3f}")
        if right > target:
            break
    return model, right
