"""The choice of ``--precision``, which several verbs offer."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """Of a model's weights."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    AUTO = "auto"
