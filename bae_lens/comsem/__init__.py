"""ComSem (section 5.1): names and scores for the features of a BAE, or of any SAELens SAE.

`prepare` collects the samples of each feature (step 1 of Algorithm 1), `interpret` has them named and judged (steps 2 and 3) by
a backend, and `write_results` keeps what came out. Nothing here is imported by `import bae_lens`.
"""

from bae_lens.comsem.backends.function import FunctionBackend
from bae_lens.comsem.backends.openai_backend import OpenAIBackend
from bae_lens.comsem.backends.protocol import Backend, FatalError, PassingError, Reply, Request, RequestError
from bae_lens.comsem.backends.rules import RulesBackend
from bae_lens.comsem.collect import collect
from bae_lens.comsem.estimate import estimate
from bae_lens.comsem.results import write_results
from bae_lens.comsem.retry import Retries
from bae_lens.comsem.runner import Results, RunOptions, interpret, interpret_async
from bae_lens.comsem.scores import top_n
from bae_lens.comsem.sentences import sentence_windows
from bae_lens.comsem.study import Study, StudyOptions, prepare

__all__ = [
    "Backend",
    "FatalError",
    "FunctionBackend",
    "OpenAIBackend",
    "PassingError",
    "Reply",
    "Request",
    "RequestError",
    "Results",
    "Retries",
    "RulesBackend",
    "RunOptions",
    "Study",
    "StudyOptions",
    "collect",
    "estimate",
    "interpret",
    "interpret_async",
    "prepare",
    "sentence_windows",
    "top_n",
    "write_results",
]
