"""The release stages, from evaluated models to a deployment: gate and registry, deployment record, report."""

from kfp import dsl

from components.images import step as image_of


@dsl.component(base_image=image_of("register"), install_kfp_package=False)
def register(
    preset: str,
    settings: str,
    store: str,
    examples: dsl.Input[dsl.Dataset],
    model_base: dsl.Input[dsl.Model],
    model_sft: dsl.Input[dsl.Model],
    model_dpo: dsl.Input[dsl.Model],
    evaluation_base: dsl.Input[dsl.Artifact],
    evaluation_sft: dsl.Input[dsl.Artifact],
    evaluation_dpo: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
) -> bool:
    """Choose the winner, test it against the gate, register it; return whether it may be deployed at once."""
    from infill.artifacts.decision import is_deployed_at_once
    from infill.cluster import job_settings
    from infill.stages.step import step

    models = {"model_base": model_base.path, "model_sft": model_sft.path, "model_dpo": model_dpo.path}
    records = {"evaluation_base": evaluation_base.path, "evaluation_sft": evaluation_sft.path}
    inputs = {"examples": examples.path, **models, **records, "evaluation_dpo": evaluation_dpo.path}
    manifest = step("register", preset=preset, settings=settings, store=store, inputs=inputs, output=decision.path)
    return is_deployed_at_once(manifest.uri, tried_at_once=job_settings.read() is not None)


@dsl.component(base_image=image_of("deploy"), install_kfp_package=False)
def deploy(
    preset: str,
    settings: str,
    store: str,
    decision: dsl.Input[dsl.Artifact],
    deployment: dsl.Output[dsl.Artifact],
) -> None:
    """Write the deployment record of the model that passed the gate."""
    from infill.stages.step import step

    inputs = {"decision": decision.path}
    step("deploy", preset=preset, settings=settings, store=store, inputs=inputs, output=deployment.path)


@dsl.component(base_image=image_of("report"), install_kfp_package=False)
def report(
    preset: str,
    settings: str,
    store: str,
    corpus: dsl.Input[dsl.Dataset],
    tokenizer: dsl.Input[dsl.Artifact],
    base: dsl.Input[dsl.Model],
    examples: dsl.Input[dsl.Dataset],
    sft: dsl.Input[dsl.Model],
    preferences: dsl.Input[dsl.Dataset],
    dpo: dsl.Input[dsl.Model],
    evaluation_base: dsl.Input[dsl.Artifact],
    evaluation_sft: dsl.Input[dsl.Artifact],
    evaluation_dpo: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
) -> None:
    """Write the run's report and summary."""
    from infill.stages.step import step

    data = {"corpus": corpus.path, "tokenizer": tokenizer.path, "examples": examples.path}
    models = {"base": base.path, "sft": sft.path, "preferences": preferences.path, "dpo": dpo.path}
    records = {"evaluation_base": evaluation_base.path, "evaluation_sft": evaluation_sft.path}
    inputs = {**data, **models, **records, "evaluation_dpo": evaluation_dpo.path, "decision": decision.path}
    step("report", preset=preset, settings=settings, store=store, inputs=inputs, output=report.path)
