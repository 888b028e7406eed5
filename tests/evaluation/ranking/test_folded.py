"""The folded scorer, beyond what ranking shows of it."""

from __future__ import annotations

from pathlib import Path

import torch
from small_models import make_model, make_tokenizer

from metro_t0.evaluation.ranking.folded import FoldedScorer
from metro_t0.evaluation.ranking.scorer import DistinctPrompt

PROMPTS = ["does it follow that the river sold", "my neighbour", "the old clock painted her brother"]


@torch.no_grad()
def test_greedy_answers_are_those_that_generation_writes(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    model = make_model(tokenizer).eval()
    prompts: list[DistinctPrompt] = []
    expected: list[set[tuple[int, ...]]] = []
    for text in PROMPTS:
        written = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=5, do_sample=False)
        ids = tuple(written[0].tolist()[1:])
        other = (*ids[:-1], ids[-1] + 1)
        greedy = {ids, ids[:2], ids[:1]}
        prompts.append(
            DistinctPrompt(tuple(tokenizer(text).input_ids), dict.fromkeys([other, *sorted(greedy)], 0.0))
        )
        expected.append(greedy)
    watching, not_watching = FoldedScorer(model, tokenizer, watch_greedy=True), FoldedScorer(model, tokenizer)
    watching.score(prompts, 4096)
    assert [prompt.greedy for prompt in prompts] == expected
    again = [DistinctPrompt(prompt.tokens, dict.fromkeys(prompt.scores, 0.0)) for prompt in prompts]
    not_watching.score(again, 4096)
    assert [prompt.scores for prompt in again] == [prompt.scores for prompt in prompts]
    assert not any(prompt.greedy for prompt in again)
