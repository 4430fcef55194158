# %% [markdown]
# # 6 · ComSem: names for features
#
# A language model reads numbers badly. ComSem (section 5.1 of the paper) never shows it one: it shows tokens in their sentences, asks
# what they have in common, and has the answer judged on *other* tokens, yes or no. The share of yes is the feature's score.
#
# Any OpenAI-compatible server can answer, local or hosted. Here, offline, rules do: predicates over letters and places. They know no
# meaning, so they are a lower bound; the way is the same.

# %%
import tempfile
from pathlib import Path

import bae_lens
from bae_lens import comsem
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

HOOK = "blocks.1.hook_resid_pre"
work = Path(tempfile.mkdtemp())

model = bae_lens.load_model(demo_model_dir())
text = python_docs()
windows = bae_lens.tokenize(model.tokenizer, text.train[:250], context_size=128)
x = bae_lens.harvest(model, windows, HOOK, max_tokens=80_000, progress=False).vectors

# %% [markdown]
# ## A BAE whose features are few at a token
#
# What is named matters more than what names it. Codes of the recipe `rate_distortion` have few features on at a token, so that each of
# them has one meaning more often than a feature that shares a token with twenty others.

# %%
from bae_lens.analyze.statistics import code_statistics

recipe = bae_lens.recipes.rate_distortion(model.cfg.d_model, steps=500)
bae = bae_lens.train(x, recipe, metadata={"hook_name": HOOK}, progress=False).bae
stats = code_statistics(bae, x[:10_000])
print(f"{stats.l0:.1f} features on at a token, FVU {stats.fvu:.3f}; {stats.live} of {bae.cfg.d_sae} features change")

# %% [markdown]
# ## Step 1: samples
#
# Sentences, each a window of its own. On every token the most surprising feature (`k=1`) counts as activated. The first samples of a
# feature go to whoever names it, the later ones to the judge.

# %%
sentences = comsem.sentence_windows(model.tokenizer, [*text.held_out, *text.train], 128, sentences=2000)
activations = bae_lens.harvest(model, sentences, HOOK, progress=False)
study = comsem.prepare(bae, activations, sentences, model.tokenizer, comsem.StudyOptions(k=1), progress=False)
print(study.counts)

feature = study.features[0]
print(f"\nfeature {feature.feature}, seen on {feature.seen} tokens; named by:")
for sample in feature.interpret:
    print(f"   {sample.before[-50:]!r} «{sample.token}» {sample.after[:30]!r}")

# %% [markdown]
# ## Steps 2 and 3: names and scores
#
# `interpret` asks and judges. Every answer goes into the journal before it is used: a killed run goes on where it was, and nothing is
# asked (or paid) twice.

# %%
options = comsem.RunOptions(progress=False)
results = comsem.interpret(study, comsem.RulesBackend(study.background), journal=work / "journal.jsonl", options=options)
best = sorted(results.features, key=lambda found: -(found.comsem.score or 0))
for found in best[:12]:
    print(f"feature {found.feature:4}  {found.comsem.hits} of {found.comsem.judged}  {found.phrase}")

# %% [markdown]
# ## Read it beside its controls
#
# A judge that always says yes scores one. So each feature is also judged by *another* feature's phrase (shuffled), and random tokens are named
# and judged as if they were a feature's (random).

# %%
summary = results.summary
print(f"{summary.activated} features activated, {summary.over_half} of them with a score over a half")
print(f"mean score {summary.score:.2f}; by another feature's phrase {summary.shuffled:.2f}; random tokens {summary.random:.2f}")

# %%
from bae_lens.comsem.cards import cards_text

samples = {one.feature: one for one in study.features}
print(cards_text(best[:3], [samples[found.feature] for found in best[:3]], most=4))

# %% [markdown]
# ## A language model instead
#
# `OpenAIBackend("gpt-4.1-mini")` asks OpenAI, `OpenAIBackend(NAME, "http://localhost:8000/v1")` a server of your own (vLLM, llama.cpp,
# Ollama). What will it cost? `estimate` says so before anything is sent, and `RunOptions(budget=...)` is never passed.

# %%
expected = comsem.estimate(study, "gpt-4.1-mini", "gpt-4.1-mini").total
print(f"{expected.requests:,} requests, about {expected.cost:.2f} dollars")

# %% [markdown]
# And any function can answer. It gets a `Request` (the samples, and the messages that a language model would read) and returns text. This
# one names a feature by its commonest token, and judges by that token alone.

# %%
from collections import Counter


def commonest_token(request):
    if request.kind == "interpret":
        ((token, _),) = Counter(sample.token.strip() for sample in request.samples).most_common(1)
        return f"the token {token}"
    wanted = request.phrase.removeprefix("the token ")
    return "Yes" if request.samples[0].token.strip() == wanted else "No"


own = comsem.interpret(study, comsem.FunctionBackend(commonest_token), journal=work / "own.jsonl", options=options)
print(f"mean score: rules {summary.score:.2f}, the commonest token alone {own.summary.score:.2f}")

# %% [markdown]
# The second figure is a floor worth knowing: what is left above it is more than one token.
#
# ## Keep it
#
# `write_results` writes cards, tables, and the formats of delphi and Neuronpedia. From the command line all of this is `bae-lens interpret`.

# %%
comsem.write_results(results, study, work / "comsem")
print(", ".join(sorted(path.name for path in (work / "comsem").iterdir())))

# %% [markdown]
# **Next:** [7 · Compressing activations](7_compression.ipynb).
