import json

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from bae_lens.activations.prompts import Example, Template, cut_prompts, draw_prompts, icl_prompt, prompt_windows, read_task

NAMES = {"0": "negative", "1": "positive"}


@pytest.fixture
def sst2(tmp_path):
    path = tmp_path / "sst2.txt"
    path.write_text("".join(f"{i % 2} the film number {i} is here\n" for i in range(40)))
    return path


def draw(task, shots, model, seed=0, context=400, **options):
    generator = torch.Generator().manual_seed(seed)
    return draw_prompts(task, shots, generator, tokenizer=model.tokenizer, context=context, **options)


def test_a_prompt_is_that_of_figure_8():
    shown = [Example("freakshow", "negative"), Example("a taste for the quirky", "positive")]
    assert icl_prompt(shown, Example("rustic , realistic", "positive")) == (
        "sentence: freakshow sentiment: negative\n"
        "sentence: a taste for the quirky sentiment: positive\n"
        "sentence: rustic , realistic sentiment:"
    )


def test_another_template_stands_around_the_same_texts():
    template = Template(text="Review:", label="Verdict:", end="\n\n")
    assert icl_prompt([Example("a", "x")], Example("b", "y"), template) == "Review: a Verdict: x\n\nReview: b Verdict:"


def test_the_three_formats_of_a_task_file_read_the_same(tmp_path):
    examples = [("a fine film", "positive"), ("dull", "negative"), ("a\ttab", "positive"), ("0 stars", "negative")]
    (tmp_path / "a.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in examples))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t, "label": n}) for t, n in examples))
    (tmp_path / "a.txt").write_text("".join(f"{int(n == 'positive')} {t}\n" for t, n in examples) + "\n")
    tasks = [
        read_task(tmp_path / name, label_names=names) for name, names in (("a.tsv", None), ("a.jsonl", None), ("a.txt", NAMES))
    ]
    assert tasks[0] == tasks[1] == tasks[2]
    assert sorted(tasks[0].demonstrations + tasks[0].queries) == sorted(Example(*e) for e in examples)
    assert tasks[0].labels == ["negative", "positive"]
    other = tmp_path / "a.data"
    other.write_text((tmp_path / "a.tsv").read_text())
    assert read_task(other, format="tsv")._replace(name="a") == tasks[0]


def test_one_file_is_split_the_same_way_for_a_seed_and_no_line_is_on_both_sides(sst2):
    task = read_task(sst2, label_names=NAMES)
    assert len(task.demonstrations) == 8
    assert not set(task.demonstrations) & set(task.queries)
    assert len(set(task.demonstrations) | set(task.queries)) == 40
    assert read_task(sst2, label_names=NAMES) == task
    assert read_task(sst2, label_names=NAMES, seed=1) != task


def test_two_files_are_taken_as_they_are(sst2, tmp_path):
    shown = tmp_path / "shown.txt"
    shown.write_text("1 bright\n0 dark\n")
    task = read_task(sst2, demonstrations=shown)
    assert task.demonstrations == [Example("bright", "1"), Example("dark", "0")]
    assert len(task.queries) == 40
    assert task.labels == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "1 fine\n\nthe film is dull\n", "line 3: no label: a line begins with a whole number.*'the'"),
        ("t.txt", "1 fine\n0\n", "line 2: no label and text"),
        ("t.tsv", "fine\tpositive\ndull\n", "line 2: no text, tab and label; it begins 'dull'"),
        ("t.jsonl", '{"text": "fine", "label": "a"}\n{"text": "dull"}\n', 'line 2: no JSON object with "text" and "label"'),
        ("t.jsonl", '{"text": "fine", "label": "a"}\n[]\n', "line 2"),
        ("t.txt", "1 fine\n1 great\n", "every line .* has the label '1': a task needs two classes"),
        ("t.txt", "1 fine\n", "a single line"),
        ("t.txt", "\n", "holds no text"),
    ],
)
def test_a_task_file_that_is_none_is_refused_with_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_task(tmp_path / name)


def test_a_label_that_is_not_named_and_an_unknown_format_are_refused(sst2):
    with pytest.raises(ValueError, match="line 2: no label '1' is named; those that are: 0=negative"):
        read_task(sst2, label_names={"0": "negative"})
    with pytest.raises(ValueError, match="unknown format of a task file 'csv'"):
        read_task(sst2, format="csv")


def test_equal_generators_draw_equal_prompts_and_the_last_demonstrations_stay_when_there_are_more(sst2, model):
    task = read_task(sst2, label_names=NAMES)
    assert draw(task, 4, model) == draw(task, 4, model)
    assert draw(task, 4, model) != draw(task, 4, model, seed=1)
    few, more = draw(task, 2, model), draw(task, 4, model)
    assert few.query == more.query
    assert all(long.endswith(short) for short, long in zip(few.texts, more.texts, strict=True))


def test_each_query_is_asked_once_with_demonstrations_that_differ_and_are_not_itself(sst2, model):
    task = read_task(sst2, label_names=NAMES)
    prompts = draw(task, 8, model)
    assert sorted(prompts.query) == list(range(32))
    for text, query in zip(prompts.texts, prompts.query, strict=True):
        lines = text.split("\n")
        assert len(set(lines)) == len(lines) == 9
        assert lines[-1] == f"sentence: {task.queries[query].text} sentiment:"
    assert len({text.split("\n")[0] for text in prompts.texts}) == 8  # all eight come first for some query


def test_more_prompts_than_queries_ask_again_with_other_demonstrations(sst2, model):
    task = read_task(sst2, label_names=NAMES)
    prompts = draw(task, 2, model, count=70)
    assert [prompts.query.count(i) for i in range(32)].count(2) == 26
    assert len(set(prompts.texts)) > 60


def test_prompts_that_do_not_fit_the_context_are_counted_and_left_out(tmp_path, model):
    path = tmp_path / "t.tsv"
    path.write_text("".join(f"{'the ' * (40 if i % 4 == 0 else 3)}\tclass {i % 2}\n" for i in range(40)))
    task = read_task(path)
    cuts = cut_prompts(model.tokenizer, [icl_prompt([], query) for query in task.queries], task.labels)
    lengths = [len(cut.prompt) + len(cut.answers[0]) for cut in cuts]
    assert len(set(lengths)) == 2
    assert draw(task, 0, model, context=max(lengths)).too_long == 0
    prompts = draw(task, 0, model, context=max(lengths) - 1)
    assert prompts.too_long == lengths.count(max(lengths)) > 0
    assert len(prompts.texts) == len(prompts.query) == len(task.queries) - prompts.too_long
    assert draw(task, 0, model, context=min(lengths)) == prompts
    with pytest.raises(
        ValueError, match=r"none of 32 prompts of 0 demonstrations fits the context of 5 tokens: the shortest takes"
    ):
        draw(task, 0, model, context=5)


def test_more_shots_than_demonstrations_are_refused(sst2, model):
    task = read_task(sst2)
    with pytest.raises(ValueError, match="9 shots need as many demonstrations, sst2 has 8"):
        draw(task, 9, model)
    with pytest.raises(ValueError, match="shots must be 0 or more"):
        draw(task, -1, model)


def test_windows_of_prompts_begin_with_bos_and_are_padded_on_the_right(model):
    texts = ["sentence: a sentiment:", "sentence: a longer one than that sentiment:"]
    windows = prompt_windows(model.tokenizer, texts, ["positive", "negative"])
    for text, row, length in zip(texts, windows.tokens, windows.lengths, strict=True):
        expected = [model.tokenizer.bos_token_id, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]
        assert row[: int(length)].tolist() == expected
    assert windows.document.tolist() == [0, 1]


def test_a_tokenizer_that_does_not_keep_labels_apart_is_refused():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<s>": 0, "?": 1}, unk_token="?")), bos_token="<s>", unk_token="?"
    )
    with pytest.raises(ValueError, match="the labels 'a', 'b' have no tokens of their own after 'sentiment:'"):
        cut_prompts(tokenizer, ["sentiment:"], ["a", "b"])
    with pytest.raises(ValueError, match="no tokenizer"):
        cut_prompts(None, ["sentiment:"], ["a", "b"])
