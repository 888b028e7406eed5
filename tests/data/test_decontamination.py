"""Runs of words shared with an evaluation suite, against a plain search with Python's sets."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import re
from pathlib import Path

import pytest

from metro_t0.data.decontamination import EvaluationNgrams

WORDS = ["owl", "Elm,", "don't", "snake_case", "Über", "“naïve”", "42", "東京", "—", "night.", "tree"]
SENTENCE = "the quick brown owl can not see the tall elm in the dark of night"


def plain_runs(text: str, n: int) -> set[tuple[str, ...]]:
    words = [re.sub(r"[\W_]", "", word) for word in text.lower().split()]
    words = [word for word in words if word]
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_same_documents_as_a_plain_search(n: int) -> None:
    draw = random.Random(n)

    def text(most: int) -> str:
        return "".join(
            draw.choice(WORDS) + draw.choice([" ", "\n", "\u00a0 ", "\t"])
            for _ in range(draw.randint(0, most))
        )

    suite = [("owls", SENTENCE)] + [(f"task {i % 3}", text(8)) for i in range(30)]
    ngrams = EvaluationNgrams.from_texts(suite, n)
    runs = {run for _, entry in suite for run in plain_runs(entry, n)}
    assert len(ngrams.runs) == len(runs)
    documents = [text(12) for _ in range(400)] + ["nothing shared here at all " + "x " * 9]
    found = [ngrams.overlap(document) for document in documents]
    assert [task is not None for task in found] == [bool(plain_runs(d, n) & runs) for d in documents]
    for document, task in zip(documents, found, strict=True):
        shared = {name for name, entry in suite if plain_runs(entry, n) & plain_runs(document, n)}
        assert task in shared or (task is None and not shared)


def test_thirteen_words_are_needed_and_case_and_punctuation_do_not_matter() -> None:
    ngrams = pickle.loads(
        pickle.dumps(EvaluationNgrams.from_texts([("owls", SENTENCE), ("owls", "too short")]))
    )
    words = SENTENCE.split()
    assert ngrams.overlap("Say: " + ", ".join(words[:13]).upper() + "!") == "owls"
    assert ngrams.overlap("Say: " + " ".join(words[:12]) + " but no more") is None
    assert ngrams.overlap("") is None
    assert (ngrams.tasks, ngrams.texts, ngrams.short_texts) == (("owls",), (2,), (1,))


def test_a_folder_of_datasets_and_files_of_rows(tmp_path: Path) -> None:
    folder = tmp_path / "tasks/birds/default"
    folder.mkdir(parents=True)
    (tmp_path / "tasks/birds/default/validation.jsonl.gz").write_bytes(
        gzip.compress(json.dumps({"label": 1, "choices": {"text": ["a", SENTENCE]}}).encode())
    )
    other = SENTENCE.replace("owl", "mouse")
    (folder / "train.jsonl").write_text(json.dumps({"text": other}) + "\n")
    (tmp_path / "own.csv").write_text(f'question,answer\n"{SENTENCE[::-1]}",1\n')
    ngrams = EvaluationNgrams.from_files([tmp_path / "tasks", tmp_path / "own.csv"])
    assert ngrams.tasks == ("birds/default", "own")
    assert ngrams.overlap(SENTENCE) == "birds/default"
    assert ngrams.overlap(SENTENCE[::-1]) == "own"
    assert ngrams.overlap(" ".join(other.split()[:13])) is None


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "rows.jsonl"
    broken.write_text(json.dumps({"text": SENTENCE}) + '\n{"text": \n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: broken row"):
        EvaluationNgrams.from_files([broken])
    with pytest.raises(ValueError, match="does not exist"):
        EvaluationNgrams.from_files([tmp_path / "missing"])
    with pytest.raises(ValueError, match="no text of 13 words"):
        EvaluationNgrams.from_texts([("owls", "too short")])


@pytest.mark.skipif("METRO_T0_DATA" not in os.environ, reason="needs the shared evaluation tasks")
def test_real_tasks_meet_their_own_rows() -> None:
    folder = Path(os.environ["METRO_T0_DATA"]) / "tasks" / "anli"
    ngrams = EvaluationNgrams.from_files([folder])
    with gzip.open(folder / "default/dev_r1.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    assert all(
        ngrams.overlap(row["premise"]) == "default" for row in rows if len(plain_runs(row["premise"], 13))
    )
