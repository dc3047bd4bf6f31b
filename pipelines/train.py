"""From code to three evaluated models."""

from typing import NamedTuple

from kfp import dsl

from components import data, training


class Trained(NamedTuple):
    """What the training pipeline hands to the release."""

    corpus: dsl.Dataset
    tokenizer: dsl.Artifact
    examples: dsl.Dataset
    base: dsl.Model
    sft: dsl.Model
    preferences: dsl.Dataset
    dpo: dsl.Model
    evaluation_base: dsl.Artifact
    evaluation_sft: dsl.Artifact
    evaluation_dpo: dsl.Artifact


@dsl.pipeline(
    name="infill-train", description="corpus, tokenizer, base model, SFT, DPO, and an evaluation of each model"
)
def train(preset: str, settings: dict[str, object], store: str) -> Trained:
    """Corpus, tokenizer, pre-training, examples, SFT, preferences, DPO, three evaluations."""
    run = {"preset": preset, "settings": settings, "store": store}
    corpus = data.corpus(**run).output
    tokenizer = data.tokenizer(**run, corpus=corpus).output
    base = training.pretrain(**run, corpus=corpus, tokenizer=tokenizer).output
    examples = data.examples(**run, corpus=corpus, tokenizer=tokenizer).output
    sft = training.sft(**run, examples=examples, base=base).output
    preferences = training.preferences(**run, examples=examples, model=sft).output
    dpo = training.dpo(**run, preferences=preferences, sft=sft).output
    evaluations = {
        name: training.evaluate(**run, name=name, examples=examples, model=model)
        .set_display_name(f"evaluate-{name}")
        .output
        for name, model in (("base", base), ("sft", sft), ("dpo", dpo))
    }
    return Trained(
        corpus=corpus,
        tokenizer=tokenizer,
        examples=examples,
        base=base,
        sft=sft,
        preferences=preferences,
        dpo=dpo,
        evaluation_base=evaluations["base"],
        evaluation_sft=evaluations["sft"],
        evaluation_dpo=evaluations["dpo"],
    )
