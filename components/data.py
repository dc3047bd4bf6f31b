"""The data stages, from code to examples: corpus, tokenizer, syntactic holes.

KFP ships the source of a component's body, which therefore sees only its arguments and its own imports. Each output is
a stage's manifest of a few KB; the bytes stay in the store.
"""

from kfp import dsl

from components.images import step as image_of


@dsl.component(base_image=image_of("corpus"), install_kfp_package=False)
def corpus(
    preset: str,
    settings: str,
    store: str,
    content: str,  # noqa: ARG001 - the digest of the sources, by which KFP's cache notices a change
    corpus: dsl.Output[dsl.Dataset],
) -> None:
    """Read the sources and keep the documents that may be trained on."""
    from infill.stages.step import step

    manifest = step("corpus", preset=preset, settings=settings, store=store, inputs={}, output=corpus.path)
    corpus.metadata.update(manifest.metrics)


@dsl.component(base_image=image_of("tokenizer"), install_kfp_package=False)
def tokenizer(
    preset: str,
    settings: str,
    store: str,
    content: str,  # noqa: ARG001 - the digest of the base model, for KFP's cache
    corpus: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Output[dsl.Artifact],
) -> None:
    """Train the tokenizer on the corpus, or use that of the base model."""
    from infill.stages.step import step

    inputs = {"corpus": corpus.path}
    manifest = step("tokenizer", preset=preset, settings=settings, store=store, inputs=inputs, output=tokenizer.path)
    tokenizer.metadata.update(manifest.metrics)


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
    from infill.stages.step import step

    inputs = {"corpus": corpus.path, "tokenizer": tokenizer.path}
    manifest = step("examples", preset=preset, settings=settings, store=store, inputs=inputs, output=examples.path)
    examples.metadata.update(manifest.metrics)
