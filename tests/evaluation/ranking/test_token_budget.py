"""The token budget: as asked for, found by itself, and lowered where memory really runs out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import make_model, make_tokenizer

from metro_t0.evaluation.ranking.budget import TokenBudget, bytes_per_token
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> MetroT0Tokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_a_budget_is_what_was_asked_for_or_found(tokenizer: MetroT0Tokenizer) -> None:
    model = make_model(tokenizer)
    assert TokenBudget.of(model, 77).tokens == 77
    assert TokenBudget.of(model, None).tokens >= 512
    with pytest.raises(ValueError, match=r"--batch-tokens.* must be at least 1, not 0"):
        TokenBudget.of(model, 0)


def test_the_estimate_of_memory_is_above_what_a_layer_holds() -> None:
    config = MetroT0Config(vocab_size=600, num_layers=1)
    model = MetroT0ForConditionalGeneration(config)
    states_and_inner = 4 * (config.d_model + config.d_ff)
    scores = 4 * config.num_heads * 512
    assert states_and_inner + scores < bytes_per_token(model, 512) < 20 * (states_and_inner + scores)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit that the allocator keeps to")
def test_less_at_once_when_the_allocator_fails(tokenizer: MetroT0Tokenizer, tmp_path: Path) -> None:
    """A limit of the system on this process's memory: the real allocator fails, and the results are the same."""
    tokenizer.save_pretrained(tmp_path)
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, here / "ranking_in_little_memory.py", tmp_path, "200000:2", "20000:80"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    too_little, enough = json.loads(done.stdout)
    assert 1 < enough["budget"] < 4000
    assert len(enough["said"]) == len(set(enough["said"])) > 0, "each time it is lowered is said once"
    assert enough["said"][-1].endswith(f"going on with {enough['budget']}")
    for limited, unlimited in zip(enough["limited"], enough["unlimited"], strict=True):
        assert limited == pytest.approx(unlimited, rel=1e-5)
    assert "memory is too small for a prompt of " in too_little["error"]
    assert "--max-input-length" in too_little["error"]
