"""Names and scores in the formats that delphi and Neuronpedia read.

delphi (EleutherAI, 0.1): `explanations/MODULE_latentN.txt`, a JSON string, and `scores/SCORER/MODULE_latentN.txt`, a JSON list
of judged examples ("str_tokens", "activating", "prediction", "correct", ...). Neuronpedia: `explanations/batch-N.jsonl.gz`, one
JSON object a line ("modelId", "layer", "index", "description", "explanationModelName", "typeName"), as its public exports have
them. Both were checked against what those projects read; Neuronpedia's own ids of a model and a source are its to give, and
are the model's name and the hook point here.
"""

import gzip
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bae_lens.comsem.samples import Sample
from bae_lens.comsem.scores import FeatureResult
from bae_lens.comsem.study import Study
from bae_lens.files import write_bytes, write_text

if TYPE_CHECKING:
    from bae_lens.comsem.runner import Results

TYPE_NAME = "comsem"
BATCH = 1024
"""Features a file of Neuronpedia's exports."""


def export_delphi(results: "Results", study: Study, out: str | Path, module: str | None = None) -> Path:
    """Writes explanations and scores as delphi leaves them on disk.

    Args:
        module: delphi's name of the hook point, such as "layers.5"; the hook point's own if not given.
    """
    out = Path(out)
    module = re.sub(r"[^\w.\-]", "_", module or _hook(study))
    for result, feature in zip(results.features, study.features, strict=True):
        if result.phrase is None:
            continue
        name = f"{module}_latent{result.feature}.txt"
        write_text(out / "explanations" / name, json.dumps(result.phrase))
        if result.answers:
            rows = [_judged(s, answer) for s, answer in zip(feature.test, result.answers, strict=True)]
            write_text(out / "scores" / TYPE_NAME / name, json.dumps(rows))
    return out


def export_neuronpedia(results: "Results", study: Study, out: str | Path, model: str = "", source: str = "") -> Path:
    """Writes explanations as Neuronpedia's public exports have them.

    Args:
        model: Neuronpedia's id of the model.
        source: Its id of the SAE, such as "5-res-bae"; the hook point if not given.
    """
    out = Path(out)
    llm = str(results.settings["interpreter"]["model"])
    named = [r for r in results.features if r.phrase is not None]
    for number, start in enumerate(range(0, len(named), BATCH)):
        rows = [_explanation(r, model, source or _hook(study), llm) for r in named[start : start + BATCH]]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        write_bytes(out / "explanations" / f"batch-{number}.jsonl.gz", gzip.compress(content, mtime=0))
    return out


def _judged(sample: Sample, answer: bool | str) -> dict[str, Any]:
    read = isinstance(answer, bool)
    return {
        "str_tokens": list(sample.tokens),
        "activations": list(sample.activations) or [0.0] * len(sample.tokens),
        "distance": 1,
        "activating": True,
        "prediction": answer if read else None,
        "probability": None,
        "correct": answer if read else None,
    }


def _explanation(result: FeatureResult, model: str, source: str, llm: str) -> dict[str, Any]:
    return {
        "modelId": model,
        "layer": source,
        "index": str(result.feature),
        "description": result.phrase,
        "explanationModelName": llm,
        "typeName": TYPE_NAME,
        "score": result.comsem.score,
    }


def _hook(study: Study) -> str:
    return str(study.settings["sae"]["hook_name"] or "unknown")
