"""What someone sees who has just installed it: the command alone, --help, mistakes, and errors that end with what to try."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bae_lens.cli import COMMANDS, WELCOME, build_parser, main, parse

NAMES = list(build_parser()[1].choices)


def last_line(text):
    return text.strip().splitlines()[-1]


def test_alone_it_shows_every_command_and_where_to_begin(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == WELCOME.strip()
    assert "New here? `bae-lens demo`" in shown
    assert set(re.findall(r"^  bae-lens ([a-z-]+)", shown, re.MULTILINE)) == set(NAMES)
    assert len(NAMES) == len(COMMANDS)


def test_the_commands_of_the_welcome_are_taken_as_they_stand():
    for line in re.findall(r"^  (bae-lens .*?)(?:  |$)", WELCOME, re.MULTILINE):
        if not re.search(r"--help|\.\.\.|COMMAND", line) and len(shlex.split(line)) > 2:
            try:
                parse(shlex.split(line)[1:])
            except SystemExit:  # what is shown is the beginning of a command: only what lacks may be wrong
                with pytest.raises(SystemExit):
                    parse([shlex.split(line)[1]])


@pytest.mark.parametrize("name", NAMES)
def test_every_help_has_a_description_and_examples_that_are_taken_as_they_stand(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    examples = shown.split("\nexample:\n")[1].replace("\\\n", " ").strip().splitlines()
    assert examples
    shown = []
    for command in (part for line in examples for part in line.split("&&")):
        words = shlex.split(command)
        if words[0] == "torchrun":
            words = ["bae-lens", *words[words.index("bae_lens") + 1 :]]
        assert words[0] == "bae-lens"
        assert parse(words[1:]).run
        shown.append(words[1])
    assert name in shown


def test_every_option_says_what_it_is():
    plain = {"seed", "device", "help"}  # these names say it
    for name, parser in build_parser()[1].choices.items():
        lacking = [a.dest for a in parser._actions if not a.help and a.dest not in plain]
        assert not lacking, f"{name}: {lacking}"


@pytest.mark.parametrize(
    ("words", "message", "attempt"),
    [
        (["trian"], "there is no command 'trian'; did you mean 'train'", "try: bae-lens --help"),
        (["harvest", "--out", "x", "--hok", "blocks"], "--hok blocks; did you mean '--hooks'", "try: bae-lens harvest --help"),
        (["train"], "the following arguments are required: --out", "try: bae-lens train --help"),
        (["train", "--out", "x", "--steps", "many"], "invalid int value: 'many'", "try: bae-lens train --help"),
        (["--trace"], "ambiguous|unrecognized|unknown|expected", None),
        (["demo", "extra"], "unknown: extra", "try: bae-lens demo --help"),
    ],
)
def test_a_mistyped_line_is_two_lines_what_is_wrong_and_what_to_try(words, message, attempt, capsys):
    if attempt is None:  # an abbreviation that argparse understands
        assert main(words) == 0
        return
    with pytest.raises(SystemExit) as end:
        main(words)
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert last_line(error) == attempt
    assert len(error.strip().splitlines()) == 2


WRONG = {
    "demo": "demo --model nowhere --text {text} --out {out}",
    "harvest": "harvest --positions many --out {out}",
    "train": "train --out {out}",
    "entropy": "entropy --activations {nowhere} --out {out}",
    "icl": "icl --model {nowhere} --task {nowhere} --out {out}",
    "two-tokens": "two-tokens --model {nowhere} --hook blocks.1.hook_resid_pre --out {out}",
    "rate-distortion": "rate-distortion --activations {nowhere} --hook x --out {out}",
    "interpret": "interpret --bae {nowhere} --backend nonsense --out {out}",
    "steer": "steer --bae {nowhere} --feature 1 --prompts {text} --out {out}",
    "taskvec": "taskvec --bae {nowhere} --task {nowhere} --out {out}",
    "compare": "compare --activations {nowhere} --out {out}",
    "transcoder": "transcoder --activations {nowhere} --from a --to b --out {out}",
    "compress": "compress --bae {nowhere} --activations {nowhere} --out {out}",
    "decompress": "decompress {nowhere} --out {out}",
    "more-bit": "more-bit --activations {nowhere} --bits many --out {out}",
    "synthetic": "synthetic --r 999 --d 4 --out {out}",
    "bench-codes": "bench-codes --kinds nonesuch --out {out}",
    "export": "export --bae {nowhere} --model {nowhere} --text {text} --out {out}",
}
"""A line of each command that cannot work."""


@pytest.mark.parametrize("name", WRONG)
def test_every_error_ends_with_what_to_try(name, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("A sentence.\n")
    places = {"nowhere": tmp_path / "nowhere", "text": tmp_path / "text.txt", "out": tmp_path / "out"}
    assert main(shlex.split(WRONG[name].format(**places))) == 2
    error = capsys.readouterr().err
    said, attempt = error.strip().splitlines()[-2:]
    assert last_line(error) == attempt == f"try: bae-lens {name} --help (an example), bae-lens doctor (this machine)"
    assert len(said) > len("bae-lens: error: ") + 15
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "cells").exists()


def test_every_command_that_can_be_given_wrong_input_is_tried_here():
    assert set(NAMES) - set(WRONG) <= {"doctor", "plan", "report", "figures", "reproduce", "train-grid"}  # they have their own


def test_where_a_package_does_not_fit_importing_says_how_to_find_out(tmp_path):
    (tmp_path / "sae_lens").mkdir()
    (tmp_path / "sae_lens" / "__init__.py").write_text("raise ImportError('transformer_lens is of another version')\n")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    found = subprocess.run(
        [sys.executable, "-c", "import bae_lens"], capture_output=True, text=True, env=environment, check=False
    )
    assert found.returncode == 1
    assert (
        last_line(found.stderr) == f"What does not fit, and what to do: {sys.executable} -P {root / 'bae_lens' / 'doctor.py'}"
    )
