"""Which of torchrun's processes this is, known before torch is loaded."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Whether this process, of all that run the command, is the one that speaks: all have the same to say."""
    return os.environ.get("RANK", "0") == "0"
