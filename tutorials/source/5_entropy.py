# %% [markdown]
# # 5 · Entropy of layers, positions and demonstrations
#
# How many bits does a hidden state carry? In the paper's first application (section 4) a BAE is trained on the hidden states of one layer
# at one position, and its entropy is read. That is an estimate with a condition: it is of *what the code explains*. So each figure stands
# beside its FVU, and beside a second estimate that does not count the same thing twice.

# %%
import tempfile
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

work = Path(tempfile.mkdtemp())
# %cd -q {work}

# %% [markdown]
# ## By layer and position
#
# Cut the corpus into pieces, harvest a few positions of each at two layers, and train a BAE on every layer and position: two
# commands. (`Path.write_text` stands in for your own text file, a document a line.)

# %%
lines = [" ".join(document.split()) for document in python_docs().train]
pieces = [line[start : start + 250] for line in lines for start in range(0, len(line) - 250, 250)]
Path("text.txt").write_text("\n".join(pieces[:3000]))
print(f"{len(pieces[:3000])} pieces of text")
# !bae-lens harvest --model {demo_model_dir()} --text text.txt --hooks blocks.1.hook_resid_pre blocks.3.hook_resid_pre --positions 1,4,16,32 --out acts
# !bae-lens entropy --activations acts --by layer,position --steps 250 --processes 1 --out entropy > entropy.log

# %%
columns = ["hook", "position", "fvu", "entropy", "held_out_tree", "held_out_fvu"]
table = pd.read_csv("entropy/results.csv")
cells = table[table["bae"] == "of the cell"][columns]
cells.round(3)

# %%
display(Image(filename="entropy/positions.png", width=720))

# %% [markdown]
# `entropy` is the paper's figure: the sum of the bits' own entropies. `held_out_tree` counts, on documents that nothing was trained on, the
# bits given their parents in a tree of pairs: what two bits say together is counted once. Where the two are far apart, the code repeats
# itself, and the smaller one is nearer to the truth. That happens at the first position, where few different vectors exist:

# %%
for hook, rows in cells.groupby("hook"):
    first, last = rows.iloc[0], rows.iloc[-1]
    print(
        f"{hook}: position {first.position}: {first.entropy:.1f} bits by the marginal, {first.held_out_tree:.1f} by the tree; "
        f"position {last.position}: {last.entropy:.1f} and {last.held_out_tree:.1f}"
    )

# %% [markdown]
# Do later tokens carry more? Are deeper layers richer? Compare only rows of like FVU: each cell's BAE is scaled to its own vectors, so
# equal weights do not buy equal shares. (`bae-lens rate-distortion` draws bits against FVU at one hook point, beside PCA and the bound of
# a Gaussian, for when a single point is not enough.)
#
# ## By number of demonstrations
#
# The last token of a prompt with demonstrations, before the answer. A task is a file of labelled texts. Ours asks whether a piece of
# documentation speaks of files; the model that comes with this package is far too small to learn that from a prompt, and the command
# measures so: accuracy stands beside the share of the commonest label.

# %%
import json

short = [piece[:60] for piece in pieces[:2500]]
with Path("task.jsonl").open("w") as file:
    for piece in short:
        file.write(json.dumps({"text": piece, "label": "file" if "file" in piece.lower() else "other"}) + "\n")
# !bae-lens icl --model {demo_model_dir()} --task task.jsonl --shots 0,2,4 --hooks blocks.3.hook_resid_pre --prompts 1000 --scored 200 --steps 200 --processes 1 --out icl > icl.log

# %%
found = json.loads(Path("icl/results.json").read_text())
for one in found["accuracy"]:
    print(
        f"{one['shots']} demonstrations: accuracy {one['accuracy']:.2f} [{one['low']:.2f}, {one['high']:.2f}], "
        f"the commonest label's share {one['majority']:.2f}"
    )
pd.read_csv("icl/results.csv")[["hook", "shots", "fvu", "entropy", "held_out_tree"]].round(3)

# %% [markdown]
# The paper finds that demonstrations *lower* the entropy. That can be tested only on a model that learns in context: where accuracy does not
# rise over the commonest label's share, an entropy that falls, or does not, says nothing about learning. On a Llama of yours the same
# command makes the figures of the paper.
#
# **Next:** [6 · ComSem: names for features](6_comsem.ipynb).
