"""metro-t0: METRO pretraining, prompt-finetuning and zero-shot ranking of text-to-text models.

The public names below load on first use, so that ``import metro_t0`` itself stays cheap:

>>> from metro_t0 import MetroT0ForConditionalGeneration, MetroT0Tokenizer, rank

Once it is imported, transformers' ``AutoConfig``, ``AutoModelForSeq2SeqLM`` and ``AutoTokenizer`` know its models.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metro_t0.interop.auto_classes import register_auto_classes

if TYPE_CHECKING:
    from metro_t0.evaluation.generation import generate_texts
    from metro_t0.evaluation.ranking.rank import rank
    from metro_t0.modeling.configuration import MetroT0Config
    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
    from metro_t0.modeling.pretraining import MetroT0ForPreTraining
    from metro_t0.objectives.metro import MetroObjective
    from metro_t0.prompts.template import load_templates
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

__version__ = "0.1.0"

_HOMES = {
    "MetroObjective": "metro_t0.objectives.metro",
    "MetroT0Config": "metro_t0.modeling.configuration",
    "MetroT0ForConditionalGeneration": "metro_t0.modeling.encoder_decoder",
    "MetroT0ForPreTraining": "metro_t0.modeling.pretraining",
    "MetroT0Tokenizer": "metro_t0.tokenization.tokenizer",
    "generate_texts": "metro_t0.evaluation.generation",
    "load_templates": "metro_t0.prompts.template",
    "rank": "metro_t0.evaluation.ranking.rank",
}

__all__ = [
    "MetroObjective",
    "MetroT0Config",
    "MetroT0ForConditionalGeneration",
    "MetroT0ForPreTraining",
    "MetroT0Tokenizer",
    "generate_texts",
    "load_templates",
    "rank",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metro_t0' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_auto_classes()
