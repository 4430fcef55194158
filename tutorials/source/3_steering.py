# %% [markdown]
# # 3 · Steering
#
# A feature is a direction that the decoder can add. This tutorial adds it while the model runs, measures what that does to the
# tokens it promotes and to text that has nothing to do with it, and holds random directions against it.

# %%
import torch

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

HOOK = "blocks.1.hook_resid_pre"

model = bae_lens.load_model(demo_model_dir())
text = python_docs()
windows = bae_lens.tokenize(model.tokenizer, text.train[:300], context_size=128)
x = bae_lens.harvest(model, windows, HOOK, max_tokens=100_000, progress=False).vectors
recipe = bae_lens.recipes.recommended(model.cfg.d_model, steps=800, entropy_weight=0.2)
bae = bae_lens.train(x, recipe, metadata={"hook_name": HOOK}, progress=False).bae

# %% [markdown]
# ## Which feature?
#
# `direct_logits` follows each decoder row through the final norm and the unembedding. It asks nothing of the layers between, so it is
# a first guess, and quick: all features at once. We take the live feature whose guess is strongest.

# %%
from bae_lens.analyze.statistics import code_statistics
from bae_lens.intervene.direct import direct_logits

held_out = bae_lens.tokenize(model.tokenizer, text.held_out[:30], context_size=64)
prompts = held_out._replace(tokens=held_out.tokens[:48], lengths=held_out.lengths[:48], document=held_out.document[:48])

frequency = code_statistics(bae, x[:20_000]).frequency
usable = ((frequency > 0.002) & (frequency < 0.2)).nonzero().flatten().tolist()
direct = direct_logits(model, bae, usable, prompts=prompts)
best = int(direct.amax(-1).argmax())
feature = usable[best]
guess = [repr(model.tokenizer.decode([token])) for token in direct[best].topk(8).indices.tolist()]
print(f"of {len(usable)} features that fire now and then: feature {feature}, on for {frequency[feature]:.2%} of the tokens")
print("it writes towards", ", ".join(guess))

# %% [markdown]
# ## What it really does
#
# `feature_effect` runs the model from the hook point on: once with the feature on at every token against off at every token, once with
# it off where it is on by itself. What the BAE does not reconstruct stays as it is, in both.

# %%
effect = bae_lens.feature_effect(model, bae, feature, prompts)
print(effect)

# %% [markdown]
# `direct logits correlate` says how far the guess was right. *Turned on* and *ablated* are different questions: a feature can do much when
# it is forced on, and matter little where it is on by itself.
#
# ## Steer
#
# Inside the block every forward pass is edited: a number adds so many decoder rows; `"ablate"`, `"flip"`, `("clamp", a)` and
# `("scale", s)` do what they say. A steering that changes nothing is an error, not a silent no-op.

# %%
prompt = "Return the number of"


def continuation():
    torch.manual_seed(0)
    return model.generate(prompt, max_new_tokens=24, do_sample=False, verbose=False)


print("as it is:  ", repr(continuation()))
for strength in (1.0, 3.0, -3.0):
    with bae_lens.steer(model, bae, {feature: strength}) as steering:
        print(f"{strength:+.0f} rows:   ", repr(continuation()), f"({steering.changed[feature]} tokens changed)")

try:
    with bae_lens.steer(model, bae, {feature: "ablate"}, positions=[0]):
        model(prompt)
except RuntimeError as error:
    print("\nRuntimeError:", error)

# %% [markdown]
# ## Against its cost, and against random directions
#
# For every strength: the probability of the tokens that the feature promotes (chosen on one half of the prompts, measured on the
# other), and the KL divergence on text that has nothing to do with it. Random directions of equal length are held against the same
# tokens, and then against the tokens that each of them promotes most itself, which is the harder test. `bae-lens steer` makes this
# sweep from the command line.

# %%
import tempfile
from pathlib import Path

from bae_lens.sweeps.steering_job import SteerOptions, run_steering
from bae_lens.sweeps.steering_report import describe

work = Path(tempfile.mkdtemp())
bae_lens.save(bae, work / "bae")
(work / "prompts.txt").write_text("\n".join(" ".join(document.split())[:600] for document in text.held_out[:40]))
options = SteerOptions(
    bae=str(work / "bae"),
    features=[feature],
    strengths=[0.0, 1.0, 2.0, 4.0],
    prompts=work / "prompts.txt",
    windows=24,
    out=work / "steer",
)
(sweep,), notebook, files = run_steering(options)
print(describe([sweep]))

# %% [markdown]
# ## Several at once, and where
#
# Edits are a dictionary, so several features go in one block; `positions` says at which tokens: `"all"`, the `"last"` of the prompt,
# every `"generated"` one, or indices.

# %%
edits = {feature: 2.0, usable[0]: "flip"}
with bae_lens.steer(model, bae, edits, positions="generated") as steering:
    print(repr(continuation()))
print("tokens changed, by feature:", steering.changed)

# %% [markdown]
# **Next:** [4 · Beside SAELens' SAEs](4_compare_with_saelens.ipynb).
