# %% [markdown]
# # 7 · Compressing activations
#
# Activations on disk are large. A BAE's code is bits with known probabilities, so it can be stored at its entropy (section 7 and A.5 of the
# paper). A `.baez` file is that: a range coder under the probability of each bit given its parent in a tree.

# %%
import tempfile
from pathlib import Path

import torch

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

HOOK = "blocks.1.hook_resid_pre"
work = Path(tempfile.mkdtemp())

model = bae_lens.load_for_harvest(demo_model_dir(), [HOOK])
bae_lens.harvest_to_disk(model, python_docs().train, hooks=[HOOK], out=work / "acts", tokens=30_000, progress=False)
dataset = bae_lens.ActivationDataset(work / "acts", hook=HOOK)
recipe = bae_lens.recipes.rate_distortion(dataset.d_in, steps=400)
bae = bae_lens.train(dataset, recipe, metadata=dataset.metadata, progress=False).bae
print(f"{len(dataset):,} vectors of width {dataset.d_in}; {bae.cfg.d_sae} features of {bae.cfg.bits_per_feature} bits each")

# %% [markdown]
# ## Compress
#
# In Python, or `bae-lens compress --bae DIR --activations acts/ --out acts.baez`.

# %%
from bae_lens import codec

summary = codec.compress(bae, work / "acts", work / "acts.baez", codec.CodecSettings())
print(summary.describe())
full = 4 * dataset.d_in
print(
    f"{full} bytes a vector in fp32, {summary.bytes_a_vector:.1f} in the file: {summary.bytes_a_vector / full:.1%}, "
    f"at a cosine of {summary.cosine:.3f}"
)
print(
    f"with the decoder, whose size does not grow with the vectors, {summary.bytes / len(dataset):.1f} bytes for each of so few"
)

# %% [markdown]
# The share in the first place and the fidelity in the second belong together: *that* many bytes for *that* much of the vector.
#
# ## Read at any place
#
# Only the blocks that hold the asked-for vectors are read and decoded. The codes are exactly those of the BAE.

# %%
with codec.open(work / "acts.baez") as file:
    vectors = file[20_000:20_004]
    codes = file.codes(slice(20_000, 20_004))
original = next(dataset.chunks(20_004))[20_000:]
print("cosines with the originals:", [round(c, 3) for c in torch.cosine_similarity(vectors, original).tolist()])
own = (bae.encode(original) * bae.top_level).round().long()
print("codes equal to the BAE's own:", torch.equal(codes.long(), own))

# %% [markdown]
# ## Ask for a fidelity
#
# `norm_bits` stores how far along its reconstruction a vector lies; `target_fvu` adds what is needed to come to that FVU, the residual in the
# largest steps that will do. `mode="index"` is the paper's way: indices of the bits that are not where they usually are.

# %%
settings = {
    "code, each bit by itself": codec.CodecSettings(probabilities="prior"),
    "code, each bit given its parent": codec.CodecSettings(),
    "the same, with the norm": codec.CodecSettings(norm_bits=8),
    "the same, to a target FVU": codec.CodecSettings(target_fvu=0.05),
    "indices, as in the paper": codec.CodecSettings(mode="index", packed=False),
}
rows = []
for number, (name, chosen) in enumerate(settings.items()):
    found = codec.compress(bae, work / "acts", work / f"{number}.baez", chosen)
    rows.append((name, found.bytes_a_vector, found.fvu))
    print(f"{name:34} {found.bytes_a_vector:6.1f} bytes a vector, FVU {found.fvu:.3f}")

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, size, fvu in rows:
    axes.plot([size], [fvu], "o", label=name)
axes.set(xlabel="bytes a vector", ylabel="FVU", ylim=(0, None), xlim=(0, None))
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## A file that says when it is damaged
#
# Every part has a checksum. A changed byte is an error that names the place, never a wrong vector.

# %%
damaged = bytearray((work / "acts.baez").read_bytes())
damaged[len(damaged) // 2] ^= 1
(work / "damaged.baez").write_bytes(damaged)
try:
    with codec.open(work / "damaged.baez") as file:
        file[:]
except codec.DamagedFileError as error:
    print("DamagedFileError:", str(error).replace(str(work), "..."))

# %% [markdown]
# What is not kept: which token each vector is of. Keep the manifest and the places of the harvest beside the file where that matters.
#
# **Next:** [8 · A surrogate or recipe of your own](8_a_surrogate_of_your_own.ipynb).
