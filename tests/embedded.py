"""The embedded tiny Llama, as tests know it."""

from sae_lens import HookedSAETransformer
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge

MODEL_CLASSES = (HookedTransformer, HookedSAETransformer, TransformerBridge, SAETransformerBridge)
HOOK = "blocks.1.hook_resid_pre"
D_MODEL = 128
