"""A BAE trained by SAELens' LanguageModelSAETrainingRunner beside one by `bae_lens.train`: same text, steps and batch size.

    python benchmarks/saelens_runner.py --model story-llama/ --text stories.txt --hook blocks.1.hook_resid_pre --json out.json

SAELens harvests as it goes, clips gradients at norm 1 and has no start from data of its own: the BAE starts from its first
batch.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from datasets import Dataset
from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig
from tabulate import tabulate

import bae_lens
from bae_lens.analyze.statistics import code_statistics

CONTEXT = 256


def saelens_config(recipe, hook_name, steps):
    """The recipe in the words of SAELens' runner."""
    trainer = recipe.trainer
    return LanguageModelSAERunnerConfig(
        sae=dataclasses.replace(recipe.sae, entropy_delay_steps=round(trainer.entropy_schedule.delay * steps)),
        model_name="local",
        hook_name=hook_name,
        is_dataset_tokenized=False,
        streaming=False,
        context_size=CONTEXT,
        training_tokens=steps * trainer.batch_size,
        train_batch_size_tokens=trainer.batch_size,
        store_batch_size_prompts=32,
        n_batches_in_buffer=16,
        lr=trainer.learning_rate,
        lr_warm_up_steps=trainer.learning_rate_schedule.warm_up,
        lr_decay_steps=round(trainer.learning_rate_schedule.decay * steps),
        lr_end=0.0,
        seed=trainer.seed,
        exclude_special_tokens=True,
        logger=LoggingConfig(log_to_wandb=False),
        output_path=None,
        checkpoint_path=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    model = bae_lens.load_model(args.model)
    split = bae_lens.split_documents(bae_lens.read_documents(args.text))
    train, held_out = (
        bae_lens.harvest(model, bae_lens.tokenize(model.tokenizer, documents, CONTEXT), args.hook).vectors
        for documents in split
    )
    recipe = bae_lens.recipes.recommended(model.cfg.d_model, steps=args.steps)
    own = bae_lens.train(train, recipe).bae
    text = Dataset.from_list([{"text": document} for document in split.train])
    runner = LanguageModelSAETrainingRunner(
        saelens_config(recipe, args.hook, args.steps), override_dataset=text, override_model=model
    )
    found = {"own": own, "saelens": runner.run()}
    figures = {name: code_statistics(bae, held_out).numbers() for name, bae in found.items()}
    ratios = {key: figures["saelens"][key] / figures["own"][key] for key in ("fvu", "entropy")}
    print(tabulate([{"trained by": name, **row} for name, row in figures.items()], headers="keys", floatfmt=".4f"))
    print(f"SAELens' runner over our trainer: FVU {ratios['fvu']:.3f}, entropy {ratios['entropy']:.3f}")
    if args.json:
        args.json.write_text(json.dumps({**figures, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
