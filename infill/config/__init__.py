"""The settings of each stage, and the presets.

A configuration is a frozen, keyword-only dataclass (`stage_settings`), a preset a function that returns one
(`presets`); `resolve` applies the user's settings.
"""

from infill.config.presets import PRESETS, adapter, base, debug, demo, finetune, mellum_4b, mellum_4b_gqa, small
from infill.config.resolve import (
    absolute_settings,
    from_text,
    is_text,
    parse_settings,
    resolve,
    to_text,
)
from infill.config.sources import SOURCE_KINDS, Source, absolute_source, parse_source
from infill.config.stage_settings import (
    PERMISSIVE_LICENCES,
    SENSITIVE_KINDS,
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
    ReportConfig,
    SftConfig,
    TokenizerConfig,
    TrainConfig,
)

__all__ = [
    "PERMISSIVE_LICENCES",
    "PRESETS",
    "SENSITIVE_KINDS",
    "SOURCE_KINDS",
    "CorpusConfig",
    "DeployConfig",
    "DpoConfig",
    "EvaluateConfig",
    "ExamplesConfig",
    "ModelConfig",
    "PreferencesConfig",
    "Preset",
    "PretrainConfig",
    "RegisterConfig",
    "ReportConfig",
    "SftConfig",
    "Source",
    "TokenizerConfig",
    "TrainConfig",
    "absolute_settings",
    "absolute_source",
    "adapter",
    "base",
    "debug",
    "demo",
    "finetune",
    "from_text",
    "is_text",
    "mellum_4b",
    "mellum_4b_gqa",
    "parse_settings",
    "parse_source",
    "resolve",
    "small",
    "to_text",
]
