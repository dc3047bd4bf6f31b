"""The three training stages, the preferences between the last two, and the evaluation."""

from kfp import dsl

from components.images import step as image_of


@dsl.component(base_image=image_of("pretrain"), install_kfp_package=False)
def pretrain(
    preset: str,
    settings: str,
    store: str,
    content: str,  # noqa: ARG001 - the digest of the base model and adapters, for KFP's cache
    corpus: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
) -> None:
    """Train the base model with file-level fill-in-the-middle, or import one."""
    from infill.stages.step import step

    inputs = {"corpus": corpus.path, "tokenizer": tokenizer.path}
    manifest = step("pretrain", preset=preset, settings=settings, store=store, inputs=inputs, output=model.path)
    model.metadata.update(manifest.metrics)


@dsl.component(base_image=image_of("sft"), install_kfp_package=False)
def sft(
    preset: str,
    settings: str,
    store: str,
    content: str,  # noqa: ARG001 - as above
    examples: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
) -> None:
    """Fine-tune on the middle of each hole."""
    from infill.stages.step import step

    inputs = {"examples": examples.path, "model": base.path}
    manifest = step("sft", preset=preset, settings=settings, store=store, inputs=inputs, output=model.path)
    model.metadata.update(manifest.metrics)


@dsl.component(base_image=image_of("preferences"), install_kfp_package=False)
def preferences(
    preset: str,
    settings: str,
    store: str,
    content: str,  # noqa: ARG001 - the digest of the feedback dataset, for KFP's cache
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    preferences: dsl.Output[dsl.Dataset],
) -> None:
    """Sample completions, judge them, and pair the better with the worse."""
    from infill.stages.step import step

    inputs = {"examples": examples.path, "model": model.path}
    path = preferences.path
    manifest = step("preferences", preset=preset, settings=settings, store=store, inputs=inputs, output=path)
    preferences.metadata.update(manifest.metrics)


@dsl.component(base_image=image_of("dpo"), install_kfp_package=False)
def dpo(
    preset: str,
    settings: str,
    store: str,
    preferences: dsl.Input[dsl.Dataset],
    sft: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
) -> None:
    """Train the model to prefer the chosen completion over the rejected one."""
    from infill.stages.step import step

    inputs = {"preferences": preferences.path, "model": sft.path}
    manifest = step("dpo", preset=preset, settings=settings, store=store, inputs=inputs, output=model.path)
    model.metadata.update(manifest.metrics)


@dsl.component(base_image=image_of("evaluate"), install_kfp_package=False)
def evaluate(
    preset: str,
    settings: str,
    store: str,
    name: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
) -> None:
    """Complete the holes of held-out repositories and measure the completions."""
    from infill.stages.step import step

    inputs, label = {"examples": examples.path, "model": model.path}, f"evaluate-{name}"
    path = evaluation.path
    manifest = step("evaluate", preset=preset, settings=settings, store=store, inputs=inputs, output=path, label=label)
    evaluation.metadata.update(manifest.metrics)
