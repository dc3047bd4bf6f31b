"""The pipeline from three evaluated models to a deployment."""

from kfp import dsl

from components import release as components
from pipelines.cluster import on_cluster


@dsl.pipeline(name="infill-release", description="gate, registry, deployment record")
def release(
    preset: str,
    settings: str,
    store: str,
    examples: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    sft: dsl.Input[dsl.Model],
    dpo: dsl.Input[dsl.Model],
    evaluation_base: dsl.Input[dsl.Artifact],
    evaluation_sft: dsl.Input[dsl.Artifact],
    evaluation_dpo: dsl.Input[dsl.Artifact],
) -> dsl.Artifact:
    """Register the winner and deploy it if it passes the gate; return the gate's decision.

    Both steps run each time, since KFP's cache knows neither the registry's champion nor the deployed model; they do
    nothing if their result exists.
    """
    run = {"preset": preset, "settings": settings, "store": store}
    gate = on_cluster(
        components.register(
            **run,
            examples=examples,
            model_base=base,
            model_sft=sft,
            model_dpo=dpo,
            evaluation_base=evaluation_base,
            evaluation_sft=evaluation_sft,
            evaluation_dpo=evaluation_dpo,
        )
    ).set_caching_options(enable_caching=False)
    # KFP substitutes a condition as text and evaluates it, so only booleans and numbers are safe.
    with dsl.If(gate.outputs["Output"] == True, name="gate-passed"):  # noqa: E712
        deployed = on_cluster(components.deploy(**run, decision=gate.outputs["decision"]))
        deployed.set_caching_options(enable_caching=False)
    return gate.outputs["decision"]
