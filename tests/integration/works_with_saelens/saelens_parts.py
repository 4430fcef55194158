"""What several of these tests take: a prompt, a configuration, and silence."""

from sae_lens import LoggingConfig

import bae_lens

PROMPT = "Return the number of items in the list."
QUIET = LoggingConfig(log_to_wandb=False)


def training_config(c, **fields):
    defaults = {"d_in": 128, "d_sae": 64, "init": "data", "surrogate": "clip", "surrogate_width": 0.3, "entropy_delay_steps": 5}
    return bae_lens.TrainingBAEConfig(bits_per_feature=c, **(defaults | fields))
