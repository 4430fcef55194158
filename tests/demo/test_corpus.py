import ast
import inspect
import statistics

import pytest

from bae_lens.demo.corpus import is_held_out, python_docs, split_text


@pytest.fixture(scope="module")
def corpus():
    return python_docs()


def test_the_corpus_is_the_prose_of_this_interpreters_own_documentation(corpus):
    text = "\n\n".join(corpus.train + corpus.held_out)
    assert 800_000 < len(text) < 4_000_000
    paragraph = inspect.cleandoc(statistics.NormalDist.__doc__)
    assert (
        paragraph in text
        or paragraph.split("\n\n")[0] in text
        or ast.get_docstring(ast.parse(inspect.getsource(statistics)))[:80] in text
    )


def test_no_paragraph_and_no_package_is_on_both_sides(corpus):
    paragraphs = {p for d in corpus.train for p in d.split("\n\n")}
    assert not any(p in paragraphs for d in corpus.held_out for p in d.split("\n\n"))
    assert is_held_out("asyncio.events") == is_held_out("asyncio") == is_held_out("_asyncio")
    assert 0.02 < sum(map(len, corpus.held_out)) / sum(map(len, corpus.train)) < 0.3


def test_the_corpus_is_the_same_twice(corpus):
    assert python_docs() == corpus


def test_an_interpreter_without_sources_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no Python sources"):
        python_docs(tmp_path)


def test_broken_sources_are_passed_over(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "good.py").write_text(f'"""{"A paragraph of good prose about nothing in particular. " * 6}"""\n')
    assert len(python_docs(tmp_path).train + python_docs(tmp_path).held_out) == 1


def test_a_text_file_is_split_by_document_and_without_one_the_corpus_by_module(corpus, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"document {i}" for i in range(40)))
    split = split_text(tmp_path / "text.txt")
    assert sorted(split.train + split.held_out) == sorted(f"document {i}" for i in range(40))
    assert split_text(tmp_path / "text.txt", seed=1) != split
    assert tuple(split_text(None)) == tuple(corpus)
