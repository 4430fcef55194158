"""Prints docs/works_with_saelens.md from the tests that prove each of its rows.

python docs/make_works_with_saelens.py > docs/works_with_saelens.md
"""

import ast
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests" / "integration" / "works_with_saelens"
ORDER = ("in_a_model", "files", "training", "activations", "torch")
"""Of the files; a new one has to be put in its place."""

HEAD = """\
# Works with SAELens

Each row is a test in `tests/integration/works_with_saelens/`, run for one bit a feature and for three. This page is generated
from them by `docs/make_works_with_saelens.py`.

| what | what is checked |
| --- | --- |"""

TAIL = """
## What SAELens cannot do with a BAE, and what to do

| SAELens | with a BAE |
| --- | --- |
| loads by the architecture's name from a registry; there are no entry points | `KeyError: 'bae'` means that `bae_lens` was not imported: `import bae_lens` first, or export a JumpReLU SAE (`bae_lens.model.views.export_jumprelu`) that plain SAELens loads |
| counts a feature as dead that never fires | a bit that is always on is as dead and is not counted: `bae_lens.analyze.statistics.code_statistics` counts both |
| moves the decoder's norm into the encoder (`fold_W_dec_norm`) | a step does not see its input's scale: a BAE moves it into `act_scale`, with the same result |
| warms coefficients up linearly from the first step | an entropy that is *delayed* is a field of the configuration, `entropy_delay_steps` |
| clips gradients at norm 1, always | nothing to do: Adam does not see a constant factor; `bae_lens.train` does not clip |
| knows no polarity: a feature that is on for more than half of the tokens stays so | `bae_lens.model.transforms.fold_polarity(bae)` after training, exact |
| casts every tensor to the configuration's dtype when it loads | a BAE loaded as bf16 has a prior rounded to bf16 (kept in fp32 from then on): load as fp32 and convert with `.to` where that matters |
| normalises each activation by itself (`layer_norm`, `constant_norm_rescale`) | works in training and splicing; `bae_lens.steer` refuses it outside `attach`, since a decoder row then has no fixed size |
| subtracts b_dec from the input (`apply_b_dec_to_input=True`) | works; the exact rewrites that move b_dec refuse it and say so |
"""


def main() -> None:
    """Prints the page."""
    print(HEAD)
    names = {path.stem.removeprefix("test_saelens_") for path in TESTS.glob("test_saelens_*.py")} - {"page"}
    for file in sorted(names, key=ORDER.index):
        for node in ast.parse((TESTS / f"test_saelens_{file}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                print(f"| {node.name.removeprefix('test_').replace('_', ' ')} | {ast.get_docstring(node)} |")
    print(TAIL, end="")


if __name__ == "__main__":
    main()
