# %% [markdown]
# # 2 · Train your own
#
# From text to activations on disk to a BAE, and what the knobs do. The same two steps are the commands `bae-lens harvest` and
# `bae-lens train`; each shows an example with `--help`.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

HOOK = "blocks.1.hook_resid_pre"
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Activations to disk, once
#
# One forward pass serves any number of hook points, and stops after the last of them. BOS is left out: its norm is several times
# that of the other tokens. `load_for_harvest` chooses the fastest way to run the model for these hook points.

# %%
model = bae_lens.load_for_harvest(demo_model_dir(), [HOOK])
bae_lens.harvest_to_disk(model, python_docs().train, hooks=[HOOK], out=work / "acts", tokens=100_000, progress=False)

dataset = bae_lens.ActivationDataset(work / "acts", hook=HOOK)
train, held_out = dataset.split(held_out=0.1, seed=0)  # by document: no text is on both sides
measured = held_out.tensor(limit=5000)
print(f"{len(train):,} vectors to train on, {len(held_out):,} of other documents, each of width {dataset.d_in}")

# %% [markdown]
# ## A recipe is data
#
# A recipe holds two configurations: what is trained (`recipe.sae`) and how (`recipe.trainer`). `recommended` centres and rescales
# the vectors, starts each bit on for a small share of them, and leaves the entropy term off at first, so that there is something
# to compress. `with_changes` sets fields anew, and names near ones where a field does not exist.

# %%
from bae_lens.training.config import with_changes

recipe = bae_lens.recipes.recommended(dataset.d_in, expansion=4, steps=800, entropy_weight=0.2)
for name in ("d_in", "d_sae", "bits_per_feature", "surrogate", "entropy_weight", "covariance_weight"):
    print(f"sae.{name} = {getattr(recipe.sae, name)!r}")
for name in ("batch_size", "learning_rate"):
    print(f"trainer.{name} = {getattr(recipe.trainer, name)!r}")

try:
    with_changes(recipe, {"entropy_wait": 0.1})
except ValueError as error:
    print("\nValueError:", error)

# %% [markdown]
# ## Train
#
# With `out=` the directory holds the whole run: recipe, metrics, checkpoints, and at the end the BAE. Ctrl-C leaves a checkpoint,
# and `resume=True` goes on from it, to the same weights bit for bit. The run below is whole, so the second call only reads it.

# %%
recipe = with_changes(recipe, {"log_every": 20})
trained = bae_lens.train(
    train, recipe, validation=measured, metadata=dataset.metadata, out=work / "run", resume=True, progress=False
)
again = bae_lens.train(
    train, recipe, validation=measured, metadata=dataset.metadata, out=work / "run", resume=True, progress=False
)
print("in the directory:", ", ".join(sorted(path.name for path in (work / "run").iterdir())))
print("read, not repeated:", again.history == trained.history)

# %%
steps = [row.step for row in trained.history]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(steps, [row.entropy for row in trained.history])
left.set(xlabel="step", ylabel="entropy of the minibatch, bits a token", yscale="log")
right.plot(steps, [row.fvu for row in trained.history], color="C1")
right.set(xlabel="step", ylabel="FVU of the minibatch", ylim=(0, None))
plt.show()

# %% [markdown]
# The entropy rises while the term is off and the bits only reconstruct; then it is switched on and most of those bits turn out to
# be dispensable: the entropy falls by far, the FVU rises by little.
#
# ## The knob: what an error is worth
#
# `entropy_weight` is the price of a bit, in squared error. Dear bits make a short code that explains less. Neither end of the
# curve is the right one; a figure that shows only one of its two axes says nothing.

# %%
from bae_lens.analyze.statistics import code_statistics

points = []
for weight in (0.05, 0.2, 0.8):
    tried = bae_lens.recipes.recommended(dataset.d_in, steps=500, entropy_weight=weight)
    bae = bae_lens.train(train, tried, metadata=dataset.metadata, progress=False).bae
    stats = code_statistics(bae, measured)
    points.append(stats)
    print(
        f"entropy_weight {weight}: FVU {stats.fvu:.3f} at {stats.entropy:6.1f} bits a token; "
        f"of {bae.d_bits} bits {stats.live} change, {stats.dense} are dense (on for more than a tenth of the tokens)"
    )

# %% [markdown]
# ## Another recipe
#
# `rate_distortion` is another objective: codes are *refined* as they are made, by single moves that lower squared error plus code
# length, and features have nested levels. It costs more time a vector, and far fewer bits. `code_length` measures both codes in the
# same currency: held-out bits under frequencies counted on the training vectors.

# %%
from bae_lens.analyze.description_length import code_length

refined = bae_lens.train(
    train, bae_lens.recipes.rate_distortion(dataset.d_in, steps=500), metadata=dataset.metadata, progress=False
).bae
counted = train.tensor(limit=20_000)
plain, better = (code_length(sae, counted, measured) for sae in (trained.bae, refined))
print(f"recommended:     {plain.bits:6.1f} bits a token at FVU {plain.fvu:.3f}")
print(f"rate_distortion: {better.bits:6.1f} bits a token at FVU {better.fvu:.3f}")

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot([p.entropy for p in points], [p.fvu for p in points], "o-", label="recommended, three prices")
axes.plot([better.bits], [better.fvu], "s", label="rate_distortion")
axes.set(xlabel="bits a token", ylabel="FVU, held out", xscale="log", ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# Which recipe is for what stands in the README; what each part of one is worth, in the page on ablations.
#
# **Next:** [3 · Steering](3_steering.ipynb).
