"""What README and docs show: commands are taken by the parser, scripts and options in them exist, links lead somewhere."""

import re
from pathlib import Path

import pytest
from pages import PAGES, ROOT, blocks, commands_in, inline_commands, is_whole

from bae_lens.cli import parse

SHELL = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "console")]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def is_taken(words):
    try:
        parse(words)
    except SystemExit as end:
        return end.code == 0  # --help
    return True


def check_command(words, where):
    """Parses a command of this package; of a script, looks for its options in its source."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # VARIABLE=value before a command
        words = words[1:]
    if words[:1] == ["torchrun"]:
        words = ["bae-lens", *words[words.index("bae_lens") + 1 :]]
    words = [word for word in words if word not in ("&&", "|")]
    if words[0] == "bae-lens":
        assert is_taken(words[1:]), f"{where}: {' '.join(words)}"
    elif words[0] == "python" and words[1].startswith(("benchmarks/", "docs/", "tutorials/")):
        script = ROOT / words[1]
        assert script.is_file(), f"{where}: there is no {words[1]}"
        source = "".join(path.read_text(encoding="utf-8") for path in script.parent.glob("*.py"))
        for option in (word.split("=")[0] for word in words[2:] if word.startswith("--")):
            assert f'"{option}"' in source, f"{where}: {words[1]} has no {option}"


def test_every_block_says_its_language():
    unnamed = [f"{block.page}:{block.line}" for page in PAGES for block in blocks(page) if not block.language]
    assert unnamed == []


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}:{block.line}")
def test_the_commands_of_a_block_are_taken_as_they_stand(block):
    for words in commands_in(block):
        check_command(words, f"{block.page}:{block.line}")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_within_the_text_are_taken_as_they_stand(page):
    for words in filter(is_whole, inline_commands(page)):
        check_command(words, page.name)


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, page


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_to_files_lead_to_files(page):
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        found = (page.parent / target).exists()
        notebook = ROOT / "tutorials" / Path(target).with_suffix(".ipynb").name  # those are pages of the site
        assert found or (target.startswith("tutorials/") and notebook.exists()), f"{page.name}: {target}"
