"""The pipeline from code to three evaluated models."""

from typing import NamedTuple

from kfp import dsl

from components import data, training
from infill.stages import MODELS
from pipelines.cluster import on_cluster


class Trained(NamedTuple):
    """The outputs of the training pipeline, which are the inputs of the release."""

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
def train(preset: str, settings: str, store: str, content: str) -> Trained:
    """Build the data, train the base, SFT and DPO models, and evaluate each of the three."""
    run = {"preset": preset, "settings": settings, "store": store}
    corpus = on_cluster(data.corpus(**run, content=content)).output
    tokenizer = on_cluster(data.tokenizer(**run, content=content, corpus=corpus)).output
    base = on_cluster(training.pretrain(**run, content=content, corpus=corpus, tokenizer=tokenizer)).output
    examples = on_cluster(data.examples(**run, corpus=corpus, tokenizer=tokenizer)).output
    sft = on_cluster(training.sft(**run, content=content, examples=examples, base=base)).output
    preferences = on_cluster(training.preferences(**run, content=content, examples=examples, model=sft)).output
    dpo = on_cluster(training.dpo(**run, preferences=preferences, sft=sft)).output
    evaluations = {
        name: on_cluster(training.evaluate(**run, name=name, examples=examples, model=model))
        .set_display_name(f"evaluate-{name}")
        .output
        for name, model in zip(MODELS, (base, sft, dpo), strict=True)
    }
    return Trained(
        corpus=corpus,
        tokenizer=tokenizer,
        examples=examples,
        base=base,
        sft=sft,
        preferences=preferences,
        dpo=dpo,
        **{f"evaluation_{name}": evaluation for name, evaluation in evaluations.items()},
    )
