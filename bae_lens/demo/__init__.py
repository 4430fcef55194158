"""The embedded default: a tiny Llama that this project trained, the corpus it was trained on, and the main job."""

from importlib.resources import files
from pathlib import Path


def demo_model_dir() -> Path:
    """Directory of the embedded tiny Llama, in Hugging Face's format."""
    return Path(str(files(__name__) / "llama"))
