"""Models of transformers that are not ours rank as one answer after the other, computed naively, says."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from foreign_models import save_foreign_model
from small_models import WORDS
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast

from metro_t0.evaluation.generation import generate_texts
from metro_t0.evaluation.loading import load_model
from metro_t0.evaluation.ranking.plain import PlainScorer, encode_texts
from metro_t0.evaluation.ranking.rank import rank

KINDS = ["t5", "bart"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_foreign_model(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@torch.no_grad()
def score_naively(folder: Path, prompt: str, answer: str, most_tokens: int, most_answer_tokens: int) -> float:
    """One prompt, one answer, no padding: through the model's own labels, as its authors train it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    source = tokenizer(prompt, truncation=True, max_length=most_tokens, return_tensors="pt").input_ids
    target = tokenizer(answer, truncation=True, max_length=most_answer_tokens).input_ids
    target = target[1:] if target[0] == tokenizer.bos_token_id else target
    loss = model(input_ids=source, labels=torch.tensor([target])).loss
    return -float(loss) * len(target)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_tokens", [None, 1, 90])
def test_equals_the_naive_computation(folders: dict[str, Path], kind: str, batch_tokens: int | None) -> None:
    draw = random.Random(0)
    text = lambda most: " ".join(draw.choices(WORDS, k=draw.randint(1, most)))  # noqa: E731
    prompts = [text(30) for _ in range(10)]
    choices = [[text(8) for _ in range(draw.randint(1, 5))] for _ in prompts]
    prompts += [prompts[3], ""]
    choices += [[choices[3][0], "yes", "yes"], ["", "no"]]
    model, tokenizer = load_model(folders[kind])
    lengths = {"max_input_length": 40, "max_choice_length": 9}
    results = rank(model, tokenizer, prompts, choices, batch_tokens=batch_tokens, **lengths)
    for prompt, row, result in zip(prompts, choices, results, strict=True):
        wanted = [score_naively(folders[kind], prompt, answer, *lengths.values()) for answer in row]
        assert result.log_likelihoods == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        assert wanted[result.prediction] == pytest.approx(max(wanted), rel=1e-5)
        assert result.prompt_truncated == (len(tokenizer(prompt).input_ids) > 40)
        assert result.choices_truncated == sum(len(tokenizer(answer).input_ids) > 9 for answer in row)
        # BART's <s> is taken off, T5 has none.
        assert result.lengths == [
            min(9, len(tokenizer(answer).input_ids)) - (kind == "bart") for answer in row
        ]


def test_a_model_reads_no_further_than_its_positions(folders: dict[str, Path]) -> None:
    long = " ".join(WORDS * 10)
    for kind, is_cut in (("bart", True), ("t5", False)):
        model, tokenizer = load_model(folders[kind])
        first, second = rank(
            model, tokenizer, [long, long + " yes"], [["yes", "no"]] * 2, max_input_length=9999
        )
        assert (first.prompt_truncated, second.prompt_truncated) == (is_cut, is_cut)
        assert (first.log_likelihoods == second.log_likelihoods) == is_cut


@pytest.mark.parametrize("kind", KINDS)
def test_generation(folders: dict[str, Path], kind: str) -> None:
    model, tokenizer = load_model(folders[kind])
    prompts = ["does it follow", " ".join(WORDS), "which river"]
    found = generate_texts(model, tokenizer, prompts, max_new_tokens=5, max_input_length=20)
    assert [one.prompt_truncated for one in found] == [False, True, False]
    for prompt, one in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, truncation=True, max_length=20, return_tensors="pt").input_ids
        alone = model.generate(ids, max_new_tokens=5)[0]
        assert one.output == tokenizer.decode(alone, skip_special_tokens=True).strip()
    assert generate_texts(model, tokenizer, []) == []


def test_a_tokenizer_without_an_end_token_gets_one(folders: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["t5"])
    ended = encode_texts(tokenizer, ["yes", " ".join(WORDS)], max_length=12)
    from tokenizers import Tokenizer

    bare_content = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bare_content.post_processor = None
    bare = PreTrainedTokenizerFast(tokenizer_object=bare_content, eos_token="</s>")
    assert encode_texts(bare, ["yes", " ".join(WORDS)], max_length=12) == ended
    assert len(ended.cut) == 1 and all(len(ids) <= 12 for ids in ended.tokens.values())
    with pytest.raises(ValueError, match="no end token"):
        encode_texts(PreTrainedTokenizerFast(tokenizer_object=bare_content), ["yes"], max_length=12)


def test_rows_that_are_computed_once(folders: dict[str, Path]) -> None:
    model, tokenizer = load_model(folders["bart"])
    results = rank(model, tokenizer, ["which", "which"], [["yes", "no"], ["no", "yes", "no"]])
    assert results[0].log_likelihoods[1] == results[1].log_likelihoods[0] == results[1].log_likelihoods[2]
    assert dataclasses.asdict(results[0])["lengths"] == [2, 2]


def test_models_that_cannot_rank_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    tokenizer = AutoTokenizer.from_pretrained(folders["t5"])
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    model.save_pretrained(tmp_path / "no start")
    with pytest.raises(ValueError, match="there is no tokenizer in"):
        load_model(tmp_path / "no start")
    tokenizer.save_pretrained(tmp_path / "no start")
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        load_model(tmp_path / "no start")
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        PlainScorer(model, tokenizer)
