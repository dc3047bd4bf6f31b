"""From code to examples: corpus, tokenizer, syntactic holes.

A body is shipped as source: it sees its arguments and what it imports, nothing else of this module.
Each output is a stage's manifest, a few KB; the bytes stay in the store.
"""

from kfp import dsl

from components.images import step as image_of


@dsl.component(base_image=image_of("corpus"), install_kfp_package=False)
def corpus(
    preset: str,
    settings: str,
    store: str,
    content: str,  # noqa: ARG001 - the digest of the sources; KFP's cache would not know that they have changed
    corpus: dsl.Output[dsl.Dataset],
) -> None:
    """Read the sources and keep what may be trained on."""
    from infill.pipeline_step import step

    made = step("corpus", preset=preset, settings=settings, store=store, inputs={}, output=corpus.path)
    corpus.metadata.update(made.metrics)


@dsl.component(base_image=image_of("tokenizer"), install_kfp_package=False)
def tokenizer(
    preset: str,
    settings: str,
    store: str,
    content: str,  # noqa: ARG001 - as above, of the base model
    corpus: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Output[dsl.Artifact],
) -> None:
    """Train the tokenizer on the corpus, or take that of the base model."""
    from infill.pipeline_step import step

    inputs = {"corpus": corpus.path}
    made = step("tokenizer", preset=preset, settings=settings, store=store, inputs=inputs, output=tokenizer.path)
    tokenizer.metadata.update(made.metrics)


@dsl.component(base_image=image_of("examples"), install_kfp_package=False)
def examples(
    preset: str,
    settings: str,
    store: str,
    corpus: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Artifact],
    examples: dsl.Output[dsl.Dataset],
) -> None:
    """Cut syntactic holes and find their context in the same repository."""
    from infill.pipeline_step import step

    inputs = {"corpus": corpus.path, "tokenizer": tokenizer.path}
    made = step("examples", preset=preset, settings=settings, store=store, inputs=inputs, output=examples.path)
    examples.metadata.update(made.metrics)
