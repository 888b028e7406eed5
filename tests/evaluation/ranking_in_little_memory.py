"""Ranks while the system grants this process few megabytes more than it has, and then without that limit; JSON of both.

python tests/evaluation/ranking_in_little_memory.py TOKENIZER_FOLDER WIDTH:MEGABYTES...
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from small_models import WORDS, make_model
from torch import nn

from metro_t0.evaluation.ranking.budget import TokenBudget
from metro_t0.evaluation.ranking.rank import rank_rows
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

PROMPTS = [" ".join([*WORDS[: 1 + index % 20], WORDS[index % 33]]) for index in range(40)]
CHOICES = [[WORDS[(index + k) % 33] for k in range(2 + index % 3)] for index in range(40)]


def ranked(tokenizer: MetroT0Tokenizer, width: int, megabytes: int) -> dict[str, Any]:
    """What became of it with a feed-forward layer of this width: many numbers a token use up memory, not patience."""
    model = make_model(tokenizer, layers=1).eval()
    feed_forward = model.encoder.block[0].layer[-1].DenseReluDense
    feed_forward.wi, feed_forward.wo = nn.Linear(32, width), nn.Linear(width, 32)
    rank_rows(model, tokenizer, PROMPTS[:1], CHOICES[:1])  # libraries take what they take once
    granted = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (granted + megabytes * 2**20, hard))
    budget, said = TokenBudget(10**9), list[str]()
    found: dict[str, Any] = {"said": said}
    try:
        limited = rank_rows(model, tokenizer, PROMPTS, CHOICES, batch_tokens=budget, say=said.append)
        found["limited"] = [result.log_likelihoods for result in limited]
    except ValueError as error:
        found["error"] = str(error)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    unlimited = rank_rows(model, tokenizer, PROMPTS, CHOICES, batch_tokens=100)
    found["unlimited"] = [result.log_likelihoods for result in unlimited]
    return {**found, "budget": budget.tokens}


if __name__ == "__main__":
    folder, *cases = sys.argv[1:]
    tokenizer = MetroT0Tokenizer.from_pretrained(folder)
    print(json.dumps([ranked(tokenizer, *map(int, case.split(":"))) for case in cases]))
