# %% [markdown]
# # 1 · Attach a BAE and look
#
# You know TransformerLens. You may know sparse autoencoders (SAEs). A **Binary Autoencoder** (BAE,
# [arXiv 2509.20997](https://arxiv.org/abs/2509.20997)) is an SAE whose features are *bits*:
#
# - the encoder writes a vector of the residual stream as a row of zeros and ones,
# - the decoder adds up its rows where there is a one,
# - and the training asks for two things: little squared error, and little **entropy** of the bits over a minibatch.
#
# Because the code is binary, one can say what it costs: so many **bits a token**. That number and the share of the variance
# that the code leaves unexplained (**FVU**) are always read together: few bits are no merit where the code explains little.
#
# Everything here runs offline, on a tiny Llama that comes with the package and on the documentation that your Python carries.
# Every number is printed by the cell above the sentence that speaks of it.

# %%
import torch

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

HOOK = "blocks.1.hook_resid_pre"

model = bae_lens.load_model(demo_model_dir())  # a HookedTransformer; your own directory or a hub name does as well
text = python_docs()
print(f"{model.cfg.n_layers} layers, d_model {model.cfg.d_model}, vocabulary {model.cfg.d_vocab}")
print(f"{len(text.train)} documents to train on, {len(text.held_out)} held out")

# %% [markdown]
# ## A BAE, quickly
#
# Text to token windows, windows to vectors at a hook point, vectors to a BAE. The next tutorial is about these lines; here we
# only want something to look at. The hook point's name goes into the metadata, as SAELens has it.

# %%
windows = bae_lens.tokenize(model.tokenizer, text.train[:300], context_size=128)
held_out_windows = bae_lens.tokenize(model.tokenizer, text.held_out, context_size=128)
activations = bae_lens.harvest(model, windows, HOOK, max_tokens=100_000, progress=False)
held_out = bae_lens.harvest(model, held_out_windows, HOOK, max_tokens=10_000, progress=False)

recipe = bae_lens.recipes.recommended(d_in=model.cfg.d_model, expansion=4, entropy_weight=0.2, steps=800)
bae = bae_lens.train(activations.vectors, recipe, metadata={"hook_name": HOOK}, progress=False).bae
print(f"{bae.cfg.d_in} numbers in, {bae.d_bits} bits out")

# %% [markdown]
# ## What the code is
#
# `bits` gives zeros and ones, `decode` goes back. `code_statistics` measures the whole held-out set.

# %%
from bae_lens.analyze.statistics import code_statistics

x = held_out.vectors[:5]
bits = bae.bits(x)
print(bits.shape, bits.unique().tolist(), "bits that are on, for each of the five vectors:", bits.sum(-1).int().tolist())

stats = code_statistics(bae, held_out.vectors)
print(f"FVU {stats.fvu:.3f} at {stats.entropy:.1f} bits a token")
print(f"{stats.live} of {bae.d_bits} bits change, {stats.dead} never do; {stats.l0:.1f} are on at a token")

# %% [markdown]
# Read the last lines as a sentence: *with so many bits a token this code leaves this share of the variance unexplained.* The bits
# a token are the sum of each bit's own entropy; a bit that is on for half of the tokens costs one bit, a rare one costs
# little, and one that never changes costs nothing, and says nothing.
#
# ## Which features a prompt turns on
#
# A BAE knows how often each of its bits is on (its *prior*). **Burstiness**, log2 |bit - prior|, is near zero where a bit is where
# it seldom is. So it ranks the features of a token by how surprising they are, and a feature that is always on never leads the list.

# %%
prompt = "Return the number of items in the list."
bae_lens.inspect(model, bae, prompt)

# %% [markdown]
# A minus sign marks a feature that is *off* where it is usually on. What does one of these features stand for? Let us see where in
# held-out text it is on.

# %%
from bae_lens.analyze.contexts import feature_contexts, spread_features
from bae_lens.demo.describe import describe_contexts

shown = spread_features(bae, held_out.vectors, 5)  # from a rare one to a frequent one
for found in feature_contexts(bae, held_out, held_out_windows, model.tokenizer, shown):
    print(describe_contexts(found), "\n")

# %% [markdown]
# ## Attach it
#
# `attach` splices the BAE into the model: from there on the model reads the reconstruction. Inside the block everything of
# TransformerLens works, and the SAE's own hook points are there too, with the bits among them.

# %%
tokens = model.to_tokens(prompt)
clean = model(tokens, return_type="loss").item()
with bae_lens.attach(model, bae):
    spliced = model(tokens, return_type="loss").item()
    logits, cache = model.run_with_cache(tokens)

print("\n".join(f"{name:45} {tuple(value.shape)}" for name, value in cache.items() if name.startswith(HOOK)))
print(f"loss on the prompt: {clean:.3f} nats clean, {spliced:.3f} with the reconstruction")

# %% [markdown]
# One prompt says little. Over held-out text, beside what is lost when the stream is set to zero or to its mean:

# %%
from bae_lens.analyze.fidelity import ablation_baseline, fidelity
from bae_lens.demo.describe import describe_fidelity

few = bae_lens.tokenize(model.tokenizer, text.held_out[:4], context_size=128)
baseline = ablation_baseline(model, few, HOOK, activations.vectors.mean(0))
print(describe_fidelity(fidelity(model, bae, few, baseline)))

# %% [markdown]
# ## It is a SAELens SAE
#
# Saved, it is a SAELens directory: `SAE.load_from_disk` reads it back (after `import bae_lens`, which registers the
# architecture), and every tool that takes a SAELens SAE takes it.

# %%
import tempfile
from pathlib import Path

from sae_lens import SAE

directory = Path(tempfile.mkdtemp()) / "bae"
bae_lens.save(bae, directory)
again = SAE.load_from_disk(directory)
print(sorted(path.name for path in directory.iterdir()))
print(type(again).__name__, again.cfg.metadata.hook_name, "equal bits:", torch.equal(again.encode(x), bae.encode(x)))

# %% [markdown]
# **Next:** [2 · Train your own](2_train_your_own.ipynb).
