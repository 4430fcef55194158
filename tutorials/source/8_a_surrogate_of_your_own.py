# %% [markdown]
# # 8 · A surrogate or recipe of your own
#
# A bit is a step of its pre-activation, and a step has no gradient. In the backward pass a *surrogate* stands in for it. Which one decides
# whether training ends well, so it is the first thing to try an idea on. This tutorial adds one, tests it where the truth is known, tests it
# on real activations, and makes a recipe of it.

# %%
import matplotlib.pyplot as plt
import torch

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs
from bae_lens.training.config import with_changes

for name, known in bae_lens.SURROGATES.items():
    print(f"{name:15} {known.source}")

# %% [markdown]
# ## A function of three arguments
#
# The gradient at the bits, the pre-activations, and a width: out comes the gradient at the pre-activations. Ours is a triangle around the
# threshold. Registered under a name, it can stand in any configuration; a saved BAE carries only the name, so register it again
# wherever you load one.


# %%
def triangle(grad, pre, width):
    return grad * (1 - pre.abs() / width).clamp_min(0) / width


bae_lens.SURROGATES["triangle"] = bae_lens.Surrogate(
    triangle, bit_at_zero=1, source="a triangle from -width to width, of area one"
)

pre = torch.linspace(-1.5, 1.5, 301)
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
for name, width in (("sigmoid", 0.3), ("clip", 0.3), ("triangle", 0.5)):
    axes.plot(pre, bae_lens.SURROGATES[name].gradient(torch.ones_like(pre), pre, width), label=f"{name}, width {width}")
axes.set(xlabel="pre-activation", ylabel="what stands for the step's derivative")
axes.legend()
plt.show()

# %% [markdown]
# ## Where the truth is known
#
# Sums of a few directions, each there or not by the toss of a coin (section 4.1): the entropy of such a set is the number of directions, and
# its bits are known. Two figures, never one: an entropy that is right while the FVU is high is a false positive.

# %%
from bae_lens.activations.synthetic import synthetic_set
from bae_lens.analyze.statistics import code_statistics

R = 8
truth = synthetic_set(d=64, r=R, samples=8192, generator=torch.Generator().manual_seed(0))
for name, width in (("clip", 0.3), ("triangle", 0.5), ("identity", 1.0)):
    recipe = with_changes(
        bae_lens.recipes.synthetic(64, steps=1200), {"surrogate": name, "surrogate_width": width, "revise_at": []}
    )
    bae = bae_lens.train(truth.vectors, recipe, progress=False).bae
    stats = code_statistics(bae, truth.vectors)
    print(f"{name:9} H = {stats.entropy:6.2f} bits where the truth is {R}, FVU {stats.fvu:.4f}, {stats.live} bits alive")

# %% [markdown]
# An FVU of zero says that every direction was found. Where H is then a bit or so over the truth, two bits share a direction: that is the
# commonest failure, and the recipe's own repair of lost and doubled bits, which `revise_at=[]` leaves out here so that surrogates are
# compared, removes it. Where the FVU is high, H says nothing. (`bae-lens synthetic` is the whole benchmark.)
#
# ## On real activations
#
# There is no truth to hit: there are bits and FVU. `objective` weighs them by the same price that training did.

# %%
HOOK = "blocks.1.hook_resid_pre"
PRICE = 0.2

model = bae_lens.load_model(demo_model_dir())
text = python_docs()
windows, others = (bae_lens.tokenize(model.tokenizer, part, 128) for part in (text.train[:250], text.held_out))
x = bae_lens.harvest(model, windows, HOOK, max_tokens=80_000, progress=False).vectors
held_out = bae_lens.harvest(model, others, HOOK, max_tokens=8_000, progress=False).vectors

for name, width in (("clip", 0.3), ("triangle", 0.5), ("sigmoid", 1.0)):
    recipe = with_changes(
        bae_lens.recipes.recommended(model.cfg.d_model, steps=500, entropy_weight=PRICE),
        {"surrogate": name, "surrogate_width": width},
    )
    stats = code_statistics(bae_lens.train(x, recipe, progress=False).bae, held_out)
    objective = stats.fvu * model.cfg.d_model + PRICE * stats.entropy
    print(f"{name:9} FVU {stats.fvu:.3f} at {stats.entropy:6.1f} bits a token; objective {objective:.1f}; {stats.dense} dense")

# %% [markdown]
# One seed and a short run: enough to throw an idea away, not to keep one. Differences of a few per cent need seeds
# (`python benchmarks/surrogates.py` and `python benchmarks/ablations.py` show how we do it).
#
# ## A recipe of your own
#
# A recipe is a function that returns a `Recipe`. Put it beside your experiment; every function and trainer takes it.


# %%
def triangular(d_in, expansion=4, *, steps=3000, seed=0):
    """`recommended`, with a triangle that narrows to a fifth over training."""
    changes = {"surrogate": "triangle", "surrogate_width": 1.0, "width_schedule.shape": "linear", "width_schedule.end": 0.2}
    return with_changes(bae_lens.recipes.recommended(d_in, expansion, steps=steps, seed=seed, entropy_weight=PRICE), changes)


stats = code_statistics(bae_lens.train(x, triangular(model.cfg.d_model, steps=500), progress=False).bae, held_out)
print(f"FVU {stats.fvu:.3f} at {stats.entropy:.1f} bits a token")

try:
    with_changes(triangular(64), {"surrogate": "triangel"})
except ValueError as error:
    print("\nValueError:", error)

# %% [markdown]
# An idea that holds up is welcome in the package: CONTRIBUTING.md shows the house.
