"""What every stage of the job is given: the model, the texts, the hook points, where things are kept, and its own settings."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bae_lens.activations.sources import check_is_there
from bae_lens.activations.text import read_documents, split_documents
from bae_lens.checks import check_known
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs
from bae_lens.files import at_home, write_text

SIZES_FILE = Path(__file__).parent / "sizes.toml"
EMBEDDED = "the embedded corpus"


def read_sizes() -> dict[str, dict[str, Any]]:
    """The settings of each size: those of the whole, and a table a stage."""
    return tomllib.loads(SIZES_FILE.read_text(encoding="utf-8"))


@dataclass(kw_only=True)
class Bench:
    """One reproduction."""

    out: Path
    size: str = "tiny"
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the size, where they are not those of sizes.toml."""
    model: str | None = None
    """Directory or name; by default the size's own, the embedded tiny Llama at "tiny"."""
    text: str | None = None
    """File of the text to train on, or a data set's name; by default the size's own, or the embedded corpus."""
    evaluation: Path | None = None
    """File of the text that features are named on; by default what is held out of a text file."""
    task: Path | None = None
    """File of a labelled task, for in-context learning; at "tiny" one is made."""
    labels: dict[str, str] | None = None
    layers: list[int] | None = None
    """Layers of features, the main one first."""
    device: str | None = None
    processes: int | None = None
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        sizes = read_sizes()
        check_known("size", self.size, sizes)
        self.settings = self.settings or sizes[self.size]
        own_model = self.model is not None
        self.model = self.model or self.settings.get("model")
        self.text = self.text or self.settings.get("text")
        if own_model and self.text is None:
            raise ValueError("give --text with --model: the embedded corpus belongs to the embedded Llama")
        if self.size == "small" and self.model is None:
            raise ValueError('--size small is for a Llama and a text of yours: give --model and --text, or take "tiny"')
        self.device = self.device or self.settings.get("device", "cpu")
        self.processes = self.settings.get("processes") if self.processes is None else self.processes
        self.out = at_home(self.out).absolute()
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"--processes must be at least 1, got {self.processes}")
        if self.text is not None:
            check_is_there(self.text)
        for path in (self.evaluation, self.task):
            if path is not None and not at_home(path).exists():
                raise FileNotFoundError(f"there is no {path}")
        if self.model is None:
            self.model = str(demo_model_dir())
        blocks = layers_of(self.model) if self.layers or self.settings["layers"] == [] else None
        layers: list[int] = self.layers or self.settings["layers"] or [max(1, (blocks or 2) // 2)]
        if min(layers) < 1 or (blocks is not None and max(layers) > blocks):
            raise ValueError(f"layers of features are 1 to {blocks or 'the last'}, got {layers}")
        self.layers = layers

    def of(self, stage: str) -> dict[str, Any]:
        """A copy of a stage's own settings."""
        return dict(self.settings.get(stage, {}))

    @property
    def model_name(self) -> str:
        """Directory or name of the model."""
        assert self.model is not None
        return self.model

    @property
    def layer(self) -> int:
        """The main one."""
        assert self.layers
        return self.layers[0]

    @property
    def every_layer(self) -> list[int]:
        """All layers of features."""
        assert self.layers
        return self.layers

    @property
    def on(self) -> str:
        """The device."""
        assert self.device is not None
        return self.device

    @property
    def train_text(self) -> str:
        """File or name of the text to train on."""
        return str(self.texts / "train.jsonl") if self.splits_text else str(self.text)

    @property
    def held_out_text(self) -> Path | None:
        """File of the text that features are named on; None where there is none."""
        return self.evaluation or (self.texts / "held_out.jsonl" if self.splits_text else None)

    @property
    def texts(self) -> Path:
        """Where texts are kept."""
        return self.out / "inputs" / "texts"

    @property
    def splits_text(self) -> bool:
        """Whether the text is one to divide: a file, or the embedded corpus."""
        return self.text is None or at_home(self.text).is_file()

    def hook(self, layer: int) -> str:
        """The hook point of the paper's layer l: the residual stream after l blocks."""
        return hook_of(layer, layers_of(self.model_name))

    def traced_hooks(self) -> list[str]:
        """Those of the layers that traces take."""
        last = layers_of(self.model_name)
        return [hook_of(layer, last) for layer in sorted({*range(0, last, self.settings["every"]), last})]

    def dictionary(self, layer: int, method: str) -> Path:
        """Where the SAE of a method is kept."""
        return self.out / "dictionaries" / f"layer{layer}" / method

    def chosen(self) -> dict[str, Any]:
        """What tells this job from another in the same directory, as JSON values."""
        names = ("size", "model", "text", "evaluation", "task", "labels", "layers", "settings")
        found = {name: getattr(self, name) for name in names}
        found["model"] = "embedded" if self.model_name == str(demo_model_dir()) else self.model_name
        return json.loads(json.dumps(found, default=str))


def hook_of(layer: int, blocks: int) -> str:
    """The hook point of the residual stream after so many blocks.

    >>> hook_of(1, 2), hook_of(2, 2)
    ('blocks.1.hook_resid_pre', 'blocks.1.hook_resid_post')

    Raises:
        ValueError: If the model has not so many.
    """
    if not 0 <= layer <= blocks:
        raise ValueError(f"layers of this model are 0 to {blocks}, got {layer}")
    return f"blocks.{layer}.hook_resid_pre" if layer < blocks else f"blocks.{blocks - 1}.hook_resid_post"


def layers_of(model: str) -> int:
    """How many blocks a model has, by its configuration alone.

    Raises:
        FileNotFoundError: If there is no such model.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(at_home(model) if at_home(model).is_dir() else model).num_hidden_layers
    except (OSError, ValueError, AttributeError) as error:
        raise FileNotFoundError(
            f"there is no Llama {model}: give a directory, or a name that the hub knows ({error})"
        ) from error


def write_texts(bench: Bench) -> None:
    """Divides the text by document: train.jsonl and held_out.jsonl."""
    if not bench.splits_text or (bench.texts / "held_out.jsonl").is_file():
        return
    corpus = python_docs() if bench.text is None else split_documents(read_documents(bench.text))
    write_documents(bench.texts / "train.jsonl", corpus.train)
    write_documents(bench.texts / "held_out.jsonl", corpus.held_out)


def write_documents(path: Path, documents: list[str]) -> None:
    """A text file of a JSON object a line, which keeps line breaks."""
    write_text(path, "".join(json.dumps({"text": document}) + "\n" for document in documents))


def pieces(documents: list[str], characters: int) -> list[str]:
    """Documents cut into pieces of so many characters at least, at the ends of paragraphs.

    >>> pieces(["a b\\n\\nc d\\n\\ne f", "g"], 4)
    ['a b\\n\\nc d', 'e f', 'g']
    """
    found = []
    for document in documents:
        piece = ""
        for paragraph in document.split("\n\n"):
            piece = f"{piece}\n\n{paragraph}" if piece else paragraph
            if len(piece) >= characters:
                found.append(piece)
                piece = ""
        if piece:
            found.append(piece)
    return found
