# %% [markdown]
# # 4 · Beside SAELens' SAEs
#
# Is a BAE better than a TopK SAE? *At what?* An SAE's feature has a magnitude, a BAE's is a bit. Put side by side fairly, both are codes:
# so many bits a token for so much of the variance. This tutorial trains both on the same vectors, measures them in one currency, then
# lets `bae-lens compare` do it properly.

# %%
import tempfile
from pathlib import Path

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

HOOK = "blocks.1.hook_resid_pre"

work = Path(tempfile.mkdtemp())
# %cd -q {work}
model = bae_lens.load_for_harvest(demo_model_dir(), [HOOK])
bae_lens.harvest_to_disk(model, python_docs().train, hooks=[HOOK], out="acts", tokens=60_000, progress=False)
train, rest = bae_lens.ActivationDataset("acts").split(held_out=0.15, seed=0)  # by document
x, held_out = train.tensor(), rest.tensor(limit=5_000)

recipe = bae_lens.recipes.recommended(train.d_in, steps=400, entropy_weight=0.2)
bae = bae_lens.train(x, recipe, metadata=train.metadata, progress=False).bae
print(f"{len(x):,} vectors to train on, {len(held_out):,} of other documents")

# %% [markdown]
# ## SAELens' own, by SAELens' own trainer
#
# Same vectors, same width, same number of steps.

# %%
from bae_lens.analyze.statistics import code_statistics
from bae_lens.compare.baselines import standard, topk, train_baseline

k = round(code_statistics(bae, held_out).l0)
saes = {"BAE": bae}
for name, baseline in ((f"TopK, k = {k}", topk(k)), ("Standard", standard(1.0))):
    saes[name] = train_baseline(baseline, x, recipe.sae.d_sae, recipe.trainer, train.metadata)
for name, sae in saes.items():
    print(f"{name}: {type(sae).__module__}.{type(sae).__name__}")

# %% [markdown]
# ## The naive table
#
# FVU, and how many features are on. TopK has as many features on as the BAE has bits, and that makes it look far better.

# %%
for name, sae in saes.items():
    stats = code_statistics(sae, held_out)
    print(f"{name:14} FVU {stats.fvu:.3f}, {stats.l0:5.1f} on at a token, {stats.dead} dead, {stats.dense} dense")

# %% [markdown]
# ## What it costs
#
# But each feature of a TopK SAE that is on carries a real number too. `code_length` charges both for what they send: which features
# are on, under frequencies counted on the training vectors, and the magnitudes, quantised as coarsely as costs next to no FVU and
# then entropy-coded.

# %%
from bae_lens.analyze.description_length import code_length

for name, sae in saes.items():
    cost = code_length(sae, x, held_out)
    print(
        f"{name:14} {cost.bits:6.1f} bits a token at FVU {cost.fvu:.3f}: {cost.which:.1f} for which, {cost.magnitudes:.1f} for how much"
    )

# %% [markdown]
# Where one row has fewer bits and another a lower FVU, they are points on different curves, and cannot be ranked. So compare at
# *equal FVU*: tune each method to reach it, with the same number of tries.
#
# ## `bae-lens compare`
#
# It does that: every method gets the same number of tries, aims them at the FVUs of `--at`, and the report puts the bits at that FVU
# side by side, with intervals over seeds. It resumes; the SAEs stay in SAELens' format. Here two tries of few steps and one seed, so the
# curves are short and nothing has converged; `bae_nested` is the recipe `rate_distortion`. The activations are those from above.

# %%
# !bae-lens compare --activations acts --with bae,bae_nested,topk,pca --steps 200 --tries 2 --seeds 1 --at 0.2 --held-out-tokens 4000 --tokens 20000 --jobs 1 --out compare > log.txt

# %%
from IPython.display import Markdown

summary, kept, *tables = Path("compare/report.md").read_text().split("\n## ")
Markdown(summary.replace("# Comparison\n", "") + "\n**" + kept.replace("\n", "**\n", 1))

# %% [markdown]
# The report says in words where the best BAE wins and where it loses. Its `refined` columns give SAEs the same refinement of their codes that
# `rate_distortion` has, since much of a code's length lies in the encoder, not in its being binary: look at that column before you
# believe that bits are the reason. Further tables count features, compare decoders, and list every try.

# %%
from IPython.display import Image, display

for picture in sorted(Path("compare").glob("*curves*.png")):
    display(Image(picture.read_bytes(), width=640))

# %% [markdown]
# SAEs that exist already are measured as they are: `bae-lens compare --activations acts/ --bae DIR --sae DIR --sae RELEASE:SAE_ID --out DIR`.
#
# **Next:** [5 · Entropy of layers, positions and demonstrations](5_entropy.ipynb).
