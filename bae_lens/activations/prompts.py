"""In-context-learning prompts (A.3, Fig. 8): labelled texts from a file, demonstrations before a query, what fits a context."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bae_lens.activations.text import Windows
from bae_lens.checks import check_known
from bae_lens.files import at_home

DEMONSTRATION_SHARE = 0.2
"""Of a task file that holds both: the share of its lines that only serve as demonstrations."""


class Example(NamedTuple):
    """A text and its answer."""

    text: str
    label: str
    """The word or words that the model is to say."""


class Task(NamedTuple):
    """A classification task; no line of a file is on both sides."""

    name: str
    demonstrations: list[Example]
    queries: list[Example]
    labels: list[str]
    """Every label, sorted; at least two."""


class Template(NamedTuple):
    """What stands around texts and labels. The default is the paper's (Fig. 8)."""

    text: str = "sentence:"
    label: str = "sentiment:"
    """The last token of a prompt is the last of this: the paper's ":"."""
    end: str = "\n"
    """Between two examples."""


TEMPLATE = Template()


class Prompts(NamedTuple):
    """Prompts of one number of demonstrations."""

    texts: list[str]
    query: list[int]
    """The place in `Task.queries` that each asks for."""
    too_long: int
    """How many did not fit the context, and were left out."""


def read_task(
    path: str | Path,
    *,
    demonstrations: str | Path | None = None,
    label_names: Mapping[str, str] | None = None,
    format: str | None = None,
    seed: int = 0,
) -> Task:
    """A task from a file of labelled texts, one a line.

    Args:
        path: The queries, and the demonstrations too where they have no file of their own: then a fifth of the lines, drawn at
            random, are demonstrations and never asked for.
        demonstrations: A file of demonstrations, in the same format.
        label_names: What a label of the file is called in a prompt, as in {"0": "negative", "1": "positive"}; then no other
            label may be there. By default labels stand as they are.
        format: "label_first", a label and a text after white space (SST-2's "1 a fine film"; a label is a whole number there
            unless `label_names` names it); "tsv", a text, a tab and a label; "jsonl", an object with "text" and "label". By
            default what the file's name says: .tsv, .jsonl, and any other is "label_first".
        seed: Draws the split.

    Raises:
        ValueError: If a line has no label or no text, or a label that is not named (the line's number is said); if there is a
            single class, or too few lines to split.
        FileNotFoundError: If there is no such file.
    """
    path = at_home(path)
    asked = _read_examples(path, label_names, format)
    if demonstrations is None:
        shown, asked = _split(path, asked, seed)
    else:
        shown = _read_examples(at_home(demonstrations), label_names, format)
    labels = sorted({example.label for example in [*shown, *asked]})
    if len(labels) < 2:
        raise ValueError(f"every line of {path} has the label {labels[0]!r}: a task needs two classes at least")
    return Task(path.stem, shown, asked, labels)


def icl_prompt(demonstrations: Sequence[Example], query: Example, template: Template = TEMPLATE) -> str:
    """Demonstrations with their labels, then the query without: a prompt that ends where the answer begins.

    >>> icl_prompt([Example("freakshow", "negative")], Example("a taste for the quirky", "positive"))
    'sentence: freakshow sentiment: negative\\nsentence: a taste for the quirky sentiment:'
    """
    shown = [f"{template.text} {text} {template.label} {label}{template.end}" for text, label in demonstrations]
    return f"{''.join(shown)}{template.text} {query.text} {template.label}"


def draw_prompts(
    task: Task,
    shots: int,
    generator: torch.Generator,
    *,
    tokenizer: Any,
    context: int,
    count: int | None = None,
    template: Template = TEMPLATE,
) -> Prompts:
    """Prompts of a task, each with demonstrations of its own, drawn without putting back.

    Drawn with equal generators, the demonstrations of a query at few shots are the last ones of those at more.

    Args:
        shots: Demonstrations a prompt.
        context: The longest that a prompt may be in tokens, BOS and its longest label counted.
        count: How many to draw; by default every query once. More than there are queries: they come again, with other
            demonstrations (and at 0 shots as copies).

    Raises:
        ValueError: If there are fewer demonstrations than shots, or no prompt fits the context (with how long they are).
    """
    if shots < 0 or (count is not None and count < 1):
        raise ValueError(f"shots must be 0 or more and count at least 1, got {shots} and {count}")
    if shots > len(task.demonstrations):
        raise ValueError(f"{shots} shots need as many demonstrations, {task.name} has {len(task.demonstrations)}")
    query = draw_queries(task, count, generator)
    shown = _draw_distinct(len(task.demonstrations), shots, len(query), generator)
    texts = [
        icl_prompt([task.demonstrations[i] for i in reversed(row)], task.queries[asked], template)
        for asked, row in zip(query, shown.tolist(), strict=True)
    ]
    lengths = [len(cut.prompt) + max(map(len, cut.answers)) for cut in cut_prompts(tokenizer, texts, task.labels)]
    fits = [number for number, length in enumerate(lengths) if length <= context]
    if not fits:
        raise ValueError(
            f"none of {len(texts)} prompts of {shots} demonstrations fits the context of {context} tokens: the shortest takes "
            f"{min(lengths)}, the longest {max(lengths)}; take fewer shots, shorter texts or a model of a longer context"
        )
    return Prompts([texts[i] for i in fits], [query[i] for i in fits], len(texts) - len(fits))


def draw_queries(task: Task, count: int | None, generator: torch.Generator) -> list[int]:
    """The queries that `draw_prompts` asks, by their places: random passes over them, as many as it takes; by default one."""
    known = len(task.queries)
    count = known if count is None else count
    passes = [torch.randperm(known, generator=generator) for _ in range(-(-count // known))]
    return torch.cat(passes)[:count].tolist()


class Cut(NamedTuple):
    """A prompt and its labels in tokens, as the tokenizer cuts them together."""

    prompt: list[int]
    """BOS and the prompt; with the space after it where the tokenizer puts that into the prompt's last token."""
    answers: list[list[int]]
    """What each label adds."""


def cut_prompts(tokenizer: Any, prompts: Sequence[str], labels: Sequence[str]) -> list[Cut]:
    """Prompts in tokens, and the labels that may follow them after a space.

    Raises:
        ValueError: If the model has no tokenizer, or a label has no tokens of its own after a prompt: the tokenizer cuts the
            prompt's end in another way once the label follows.
    """
    if tokenizer is None:
        raise ValueError("this model has no tokenizer: its directory holds no tokenizer.json")
    plain, spaced, *with_label = (_tokens(tokenizer, prompts, end) for end in ("", " ", *(f" {label}" for label in labels)))
    found = []
    for number, prompt in enumerate(prompts):
        wholes = [ids[number] for ids in with_label]
        for before in (plain[number], spaced[number]):
            if all(len(whole) > len(before) and whole[: len(before)] == before for whole in wholes):
                found.append(Cut(before, [whole[len(before) :] for whole in wholes]))
                break
        else:
            raise ValueError(
                f"the labels {', '.join(map(repr, labels))} have no tokens of their own after {prompt[-20:]!r}: end prompts in "
                "a word or a mark that this tokenizer keeps apart, and give labels that are words"
            )
    return found


def prompt_windows(tokenizer: Any, prompts: Sequence[str], labels: Sequence[str]) -> Windows:
    """Prompts as token windows, as they stand before a label: BOS first, padded on the right; `document` counts them."""
    return padded_windows([cut.prompt for cut in cut_prompts(tokenizer, prompts, labels)])


def padded_windows(rows: Sequence[Sequence[int]]) -> Windows:
    """Rows of tokens, padded on the right with their own first token."""
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.tensor([row[0] for row in rows]).unsqueeze(1).repeat(1, int(lengths.max()))
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return Windows(tokens, lengths, torch.arange(len(rows)))


def _tokens(tokenizer: Any, prompts: Sequence[str], end: str) -> list[list[int]]:
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = tokenizer([f"{prompt}{end}" for prompt in prompts], add_special_tokens=False, verbose=False)["input_ids"]
    return [[bos, *row] for row in ids]


def _read_examples(path: Path, label_names: Mapping[str, str] | None, format: str | None) -> list[Example]:
    kind = format or path.suffix.removeprefix(".")
    if format is not None:
        check_known("format of a task file", format, LINES)
    parse = LINES.get(kind, _label_first)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file: give one of labelled texts, one a line")
    found = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            example = parse(line)
            if example is None:
                raise ValueError(
                    f"{path}, line {number}: {MISSING.get(kind, MISSING['label_first'])}; it begins {line.strip()[:40]!r}"
                )
            found.append(_named(example, label_names, f"{path}, line {number}", parse is _label_first))
    if not found:
        raise ValueError(f"{path} holds no text")
    return found


def _named(example: Example, label_names: Mapping[str, str] | None, where: str, is_first: bool) -> Example:
    if label_names is not None:
        if example.label not in label_names:
            known = ", ".join(f"{label}={name}" for label, name in label_names.items())
            raise ValueError(f"{where}: no label {example.label!r} is named; those that are: {known}")
        return example._replace(label=label_names[example.label])
    if is_first and not example.label.isdecimal():
        raise ValueError(
            f"{where}: no label: a line begins with a whole number and white space, as in '1 a fine film', this one with "
            f"{example.label[:20]!r}; name other labels (label_names), or give a .tsv or .jsonl file"
        )
    return example


def _label_first(line: str) -> Example | None:
    parts = line.split(maxsplit=1)
    return Example(parts[1].strip(), parts[0]) if len(parts) == 2 else None


def _tsv(line: str) -> Example | None:
    text, _, label = (part.strip() for part in line.rpartition("\t"))
    return Example(text, label) if text and label else None


def _jsonl(line: str) -> Example | None:
    try:
        value = json.loads(line)
        text, label = value["text"], value["label"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(text, str) or isinstance(label, bool) or not isinstance(label, str | int):
        return None
    return Example(text.strip(), str(label).strip()) if text.strip() and str(label).strip() else None


LINES: dict[str, Callable[[str], Example | None]] = {"label_first": _label_first, "tsv": _tsv, "jsonl": _jsonl}
"""Formats of task files."""
MISSING = {
    "label_first": "no label and text, as in '1 a fine film'",
    "tsv": "no text, tab and label",
    "jsonl": 'no JSON object with "text" and "label"',
}


def _split(path: Path, examples: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
    if len(examples) < 2:
        raise ValueError(f"{path} has a single line: a task needs demonstrations and queries")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    shown = min(max(1, round(DEMONSTRATION_SHARE * len(examples))), len(examples) - 1)
    return [examples[i] for i in order[:shown]], [examples[i] for i in order[shown:]]


def _draw_distinct(known: int, each: int, count: int, generator: torch.Generator) -> Tensor:
    """So many rows of so many distinct numbers under `known`; with equal generators more of them begin with the same ones."""
    rows = torch.empty(count, 0, dtype=torch.long)
    for drawn in range(each):
        new = torch.randint(known - drawn, (count,), generator=generator)
        for lower in rows.sort(1).values.unbind(1):
            new += new >= lower  # steps over those that are taken, the lowest first
        rows = torch.cat([rows, new.unsqueeze(1)], 1)
    return rows
