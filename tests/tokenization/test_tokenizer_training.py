"""Training vocabularies: what a trained folder holds, that it is repeatable, and what bad input gets."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import count_words, thin_out, train_tokenizer


def test_folder_is_in_the_published_format(small_vocabulary: Path) -> None:
    assert sorted(file.name for file in small_vocabulary.iterdir()) == [
        "dict.txt",
        "sp.model",
        "tokenizer_config.json",
    ]
    lines = (small_vocabulary / "dict.txt").read_text(encoding="utf-8").split("\n")
    assert lines[0] == "[MASK] 1"
    assert len(lines) == 1000 - 4 + 1
    tokenizer = MetroT0Tokenizer.from_pretrained(small_vocabulary)
    pieces = tokenizer._processor.id_to_piece(list(range(1000)))
    assert pieces[:5] == ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    assert tokenizer.convert_ids_to_tokens(list(range(4, 1000))) == pieces[4:]


def test_frequent_words_are_pieces_and_the_corpus_is_covered(
    small_vocabulary: Path, reference_texts: list[str]
) -> None:
    tokenizer = MetroT0Tokenizer.from_pretrained(small_vocabulary)
    frequent = [word for word, _ in count_words(reference_texts, True).most_common(200) if word.isalpha()]
    vocabulary = tokenizer.get_vocab()
    missing = [word for word in frequent if f"▁{word}" not in vocabulary]
    assert len(missing) <= 0.05 * len(frequent)
    ids = [id_ for text in tokenizer.encode_texts(reference_texts) for id_ in text]
    assert ids.count(3) / len(ids) < 1e-3
    # Every ASCII character is a piece, in the corpus or not.
    assert tokenizer.decode(tokenizer("$7 ~ `x`?").input_ids, skip_special_tokens=True) == "$ 7 ~ ` x `?"


def test_same_words_give_the_same_vocabulary(reference_texts: list[str], tmp_path: Path) -> None:
    texts = reference_texts[:30]
    train_tokenizer(texts, 300, tmp_path / "one")
    train_tokenizer((text for text in reversed(texts)), 300, tmp_path / "two", num_sentinel_tokens=512)
    for name in ("sp.model", "dict.txt", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_cased(reference_texts: list[str], tmp_path: Path) -> None:
    tokenizer = train_tokenizer(
        reference_texts[:30], 400, tmp_path / "cased", lower=False, num_sentinel_tokens=7
    )
    assert len(tokenizer) == 407
    assert tokenizer.decode(tokenizer("The Class").input_ids, skip_special_tokens=True) == "The Class"
    assert tokenizer("The").input_ids != tokenizer("the").input_ids
    assert MetroT0Tokenizer.from_pretrained(tmp_path / "cased").lower is False


def test_largest_and_smallest_size_are_the_ones_that_the_errors_name(
    reference_texts: list[str], tmp_path: Path
) -> None:
    texts = reference_texts[:10]
    for wrong, pattern in ((10**6, r"at most (\d+) pieces"), (10, r"characters need (\d+)")):
        with pytest.raises(ValueError, match=pattern) as error:
            train_tokenizer(texts, wrong, tmp_path / "wrong")
        assert "\n" not in str(error.value)
        limit = int(re.findall(r"\d+", str(error.value))[-1])
        tokenizer = train_tokenizer(texts, limit, tmp_path / str(limit), num_sentinel_tokens=1)
        assert len(tokenizer) == limit + 1
    assert not (tmp_path / "wrong").exists()
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("texts", [[], [""], ["  \n", "\t"]])
def test_empty_corpus(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the corpus is empty"):
        train_tokenizer(texts, 100, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        train_tokenizer(["some text"], 100, tmp_path)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_an_empty_folder_is_taken_and_parents_are_made(reference_texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert len(train_tokenizer(reference_texts[:3], 150, tmp_path / "empty")) == 662
    assert len(train_tokenizer(reference_texts[:3], 150, tmp_path / "deep" / "er")) == 662


def test_a_failing_corpus_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> object:
        yield "one text"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        train_tokenizer(broken(), 100, tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_no_log_but_a_status_for_the_console(
    reference_texts: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = io.StringIO()
    train_tokenizer(
        reference_texts[:3], 150, tmp_path / "out", console=Console(file=shown, force_terminal=True, width=80)
    )
    assert capfd.readouterr() == ("", "")
    assert "Training 150 pieces" in shown.getvalue()


def test_odd_characters_and_endless_words_train(tmp_path: Path) -> None:
    texts = ["a\x00b \ud83d half ▁under ▁▁ line", "中文没有空格" * 3000, "x" * 50_000, "word " * 50] * 2
    tokenizer = train_tokenizer(texts, 80, tmp_path / "odd", num_sentinel_tokens=1)
    assert all(len(tokenizer.encode_texts([text])[0]) > 0 for text in texts)


def test_rare_words_are_forgotten_when_there_are_too_many() -> None:
    texts = ["often often often twice twice", *(f"once{number}" for number in range(50)), "often twice"]
    assert count_words(texts, True) == Counter({"often": 4, "twice": 3, **{f"once{n}": 1 for n in range(50)}})
    kept = count_words(texts, True, max_distinct=10)
    assert len(kept) <= 10
    assert (kept["often"], kept["twice"]) == (4, 3)


def test_counts_are_thinned_out_as_a_random_share_would_be() -> None:
    counts = Counter({"often": 60_000, "seldom": 30, **{f"once{number}": 1 for number in range(2000)}})
    characters = sum(count * (len(word) + 1) for word, count in counts.items())
    assert thin_out(counts, characters) == counts
    thinned = thin_out(counts, characters // 10)
    assert thinned == thin_out(Counter(dict(reversed(counts.items()))), characters // 10)
    assert abs(thinned["often"] - 6000) <= 1 and 3 <= thinned["seldom"] <= 4
    # 200 of them, standard deviation 13.
    assert 140 < sum(word.startswith("once") for word in thinned) < 260
    assert min(thinned.values()) == 1


@pytest.mark.slow
def test_the_memory_of_training_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("aeioudlmnrst", k=rng.randint(2, 9))) for _ in range(20_000)]
    with (tmp_path / "large.txt").open("w") as file:
        for _ in range(250_000):
            file.write(" ".join(rng.choices(words, k=100)) + "\n")
    assert (tmp_path / "large.txt").stat().st_size > 150_000_000
    code = (
        "import resource, sys; from pathlib import Path; from metro_t0.tokenization.training import train_tokenizer;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "train_tokenizer(open(sys.argv[1]), 2000, Path(sys.argv[2]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large.txt"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 800_000, "kilobytes"
