"""From a run configuration's objective section to the objective itself."""

from __future__ import annotations

from metro_t0.config import MetroSettings, PromptedSettings, SpanCorruptionSettings
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.objectives.base import Objective
from metro_t0.objectives.masking import Masking
from metro_t0.objectives.metro import MetroObjective
from metro_t0.objectives.padding import LENGTH_MULTIPLE
from metro_t0.objectives.prompted import PromptedObjective
from metro_t0.objectives.span_corruption import SpanCorruption, SpanCorruptionObjective

ObjectiveSettings = MetroSettings | SpanCorruptionSettings | PromptedSettings


def build_objective(
    settings: ObjectiveSettings,
    model_config: MetroT0Config,
    seed: int,
    length_multiple: int = LENGTH_MULTIPLE,
) -> Objective:
    """The objective that the settings describe, for a model of this configuration.

    Args:
        settings: the ``objective`` section of a run configuration.
        model_config: says the vocabulary, its sentinels and special tokens.
        seed: of all masks and draws.
        length_multiple: padded lengths are a multiple of it; more than 1 serves a GPU alone.
    """
    if isinstance(settings, PromptedSettings):
        return PromptedObjective(
            pad_token_id=model_config.pad_token_id,
            decoder_start_token_id=model_config.decoder_start_token_id,
            length_multiple=length_multiple,
        )
    vocabulary = {
        "vocab_size": model_config.vocab_size,
        "num_sentinel_tokens": model_config.num_sentinel_tokens,
        "pad_token_id": model_config.pad_token_id,
        "length_multiple": length_multiple,
    }
    values = settings.model_dump(exclude={"kind", "masking"})
    if isinstance(settings, MetroSettings):
        masking = Masking(**settings.masking.model_dump())
        return MetroObjective(**values, **vocabulary, masking=masking, seed=seed)
    return SpanCorruptionObjective(**vocabulary, corruption=SpanCorruption(**values), seed=seed)
