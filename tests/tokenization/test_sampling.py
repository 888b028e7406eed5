"""Seeded samples of lines from streams."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import pytest

from metro_t0.tokenization.sampling import lines_of, random_lines, sample_lines

TEXTS = [f"line {number} of\n\n  \nthe text {number}\r\n" for number in range(500)]
LINES = list(lines_of(TEXTS))


def test_lines_without_blank_ones() -> None:
    assert LINES[:3] == ["line 0 of", "the text 0", "line 1 of"]
    assert len(LINES) == 1000


def test_random_lines() -> None:
    drawn = random_lines(iter(TEXTS), 100, seed=3)
    assert len(set(drawn)) == 100 and set(drawn) <= set(LINES)
    assert drawn == random_lines(TEXTS, 100, seed=3) != random_lines(TEXTS, 100, seed=4)
    assert sorted(random_lines(TEXTS, 5000, seed=3)) == sorted(LINES)


def test_every_line_is_drawn_about_as_often() -> None:
    counts = dict.fromkeys("abcdefghij", 0)
    for seed in range(2000):
        for line in random_lines(["a\nb\nc\nd\ne", "f\ng\nh\ni\nj"], 3, seed):
            counts[line] += 1
    # 600 each, standard deviation 20.
    assert all(500 < count < 700 for count in counts.values())


def test_a_sample_is_all_lines_where_they_fit() -> None:
    characters = sum(map(len, LINES))
    assert list(sample_lines(TEXTS, max_characters=characters, seed=0)) == LINES


@pytest.mark.parametrize("share", [0.9, 0.4, 0.05])
def test_a_sample_keeps_the_order_and_the_bound(share: float) -> None:
    limit = int(share * sum(map(len, LINES)))
    drawn = list(sample_lines(iter(TEXTS), max_characters=limit, seed=1))
    # The largest of 1/2, 1/4, ... that fits leaves at least half of the bound, give or take the draw.
    assert 0.4 * limit < sum(map(len, drawn)) <= limit
    rank = {line: place for place, line in enumerate(LINES)}
    assert [rank[line] for line in drawn] == sorted({rank[line] for line in drawn})
    assert drawn == list(sample_lines(TEXTS, max_characters=limit, seed=1))
    assert drawn != list(sample_lines(TEXTS, max_characters=limit, seed=2))


def test_every_character_survives_the_waiting() -> None:
    text = 'tab\t quote" \\ \ud83d half \x00 中文 \U0001f600'
    assert list(sample_lines([text], max_characters=1000, seed=0)) == [text]


def test_impossible_sizes() -> None:
    with pytest.raises(ValueError, match="at least 1 character, not 0"):
        list(sample_lines(TEXTS, max_characters=0, seed=0))
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        random_lines(TEXTS, 0, seed=0)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            ValueError, match=r"cannot keep the sample of lines in .*; make room or set TMPDIR"
        ):
            list(sample_lines(["word " * 100] * 1000, max_characters=10**6, seed=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
