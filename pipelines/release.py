"""From three evaluated models to a deployment."""

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
    """Register the winner and, when the gate lets it through, deploy it; the output is the gate's decision.

    KFP's cache knows neither the registry's champion nor what serves: they run each time and find their work done.
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
    # A KFP condition is substituted as text and evaluated: only booleans and numbers are safe in it.
    with dsl.If(gate.outputs["Output"] == True, name="gate-passed"):  # noqa: E712
        deployed = on_cluster(components.deploy(**run, decision=gate.outputs["decision"]))
        deployed.set_caching_options(enable_caching=False)
    return gate.outputs["decision"]
