"""Cleaning: repair, language and quality, each with the real library."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest

from metro_t0.data.cleaning import Cleaned, Cleaning, require_libraries
from metro_t0.data.plain_words import split_sentences, split_words

ENGLISH = "the ship left the harbour with the morning tide and that was the last we have seen of it"
GERMAN = "das schiff verliess den hafen mit der morgenflut und das war das letzte was wir von ihm sahen"

PROSE = (
    "The lighthouse keeper climbed the stairs every evening to light the lamp.\n"
    "He had done so for thirty years, and the sailors of the bay relied on him.\n"
    "One night a storm broke the great window, and the wind put out the flame.\n"
    "He carried a lantern to the cliff and waved it until the sun came up.\n"
    "No ship was lost, but the keeper never spoke of it to anybody.\n"
    "The village learned what happened from a captain who came to thank him with his crew.\n"
)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fasttext = pytest.importorskip("fasttext")
    folder = tmp_path_factory.mktemp("language")
    rng = random.Random(1)
    lines = [
        f"__label__{label} {' '.join(rng.choices(words.split(), k=12))}"
        for _ in range(200)
        for label, words in (("en", ENGLISH), ("de", GERMAN))
    ]
    (folder / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    model = fasttext.train_supervised(
        str(folder / "train.txt"), dim=8, epoch=20, loss="hs", minn=2, maxn=4, thread=1, verbose=0
    )
    model.save_model(str(folder / "two.bin"))
    return folder / "two.bin"


def test_nothing_is_done_unless_asked_for() -> None:
    assert not Cleaning()
    assert Cleaning().open()("schÃ¶n") == Cleaned("schÃ¶n")


def test_wrong_decoding_is_repaired_and_counted() -> None:
    pytest.importorskip("ftfy")
    cleaner = Cleaning(repair_unicode=True).open()
    assert cleaner("The cafÃ© was Ã¼ber full.") == Cleaned("The café was über full.", None, repaired=True)
    assert cleaner("“Curly” quotes, ﬁne ligatures.") == Cleaned("“Curly” quotes, ﬁne ligatures.")
    assert cleaner("one\r\ntwo").text == "one\ntwo"


def test_other_languages_are_dropped_with_their_name(language_model: Path) -> None:
    cleaning = Cleaning(languages=("en",), language_model=language_model)
    cleaner = pickle.loads(pickle.dumps(cleaning)).open()
    assert cleaner("the ship left\nthe harbour with the tide").text is not None
    assert cleaner("das schiff verliess den hafen mit der flut") == Cleaned(None, "language: de")
    sure = Cleaning(languages=("en",), language_model=language_model, language_threshold=1.0).open()
    assert sure("the ship das schiff the hafen").text is None
    assert cleaner("  \n ") == Cleaned(None, "empty")


def test_the_quality_filters_drop_what_they_are_for() -> None:
    pytest.importorskip("datatrove")
    cases = {
        "gopher-quality": ("Too short to be kept.", "gopher_short_doc"),
        "gopher-repetition": ("Buy now.\n" * 40, "dup_line_frac"),
        "c4": ("Only { one line } of code.", "curly_bracket"),
        "fineweb": ("no stop\n" * 40, "line_punct_ratio"),
    }
    for name, (bad, reason) in cases.items():
        cleaner = Cleaning(quality=(name,)).open()
        assert cleaner(bad) == Cleaned(None, f"{name}: {reason}")
        kept = cleaner(PROSE)
        assert kept.dropped is None
        assert kept.text is not None and kept.text.strip() == PROSE.strip()


def test_lines_that_a_filter_takes_out_are_seen() -> None:
    pytest.importorskip("datatrove")
    cleaned = Cleaning(quality=("c4",)).open()(PROSE + "Menu\nHome\n")
    assert cleaned.trimmed
    assert cleaned.text is not None and "Menu" not in cleaned.text and "lighthouse" in cleaned.text


def test_steps_run_in_order(language_model: Path) -> None:
    pytest.importorskip("ftfy")
    cleaner = Cleaning(repair_unicode=True, languages=("en",), language_model=language_model).open()
    texts = (
        "the cafÃ© left the harbour with the tide",
        "das schiff verliess den hafen",
        "das letzte was wir von ihm sahen",
    )
    assert [cleaner(text) for text in texts] == [
        Cleaned("the café left the harbour with the tide", None, repaired=True),
        Cleaned(None, "language: de"),
        Cleaned(None, "language: de"),
    ]


@pytest.mark.parametrize(
    ("cleaning", "message"),
    [
        (Cleaning(quality=("best",)), "quality filter 'best' is not one of gopher-quality"),
        (Cleaning(quality=("c4", "c4")), "a quality filter is named twice"),
        (Cleaning(languages=("en",)), "needs a fastText model file: fetch lid.176.ftz"),
        (Cleaning(languages=("en",), language_model=Path("no.bin")), "no.bin: no such language model"),
        (Cleaning(language_model=Path("no.bin")), "a language model without languages"),
        (Cleaning(language_threshold=2), "language_threshold must be from 0 to 1, not 2"),
    ],
)
def test_wrong_settings_are_one_line(cleaning: Cleaning, message: str) -> None:
    with pytest.raises(ValueError) as error:
        cleaning.check()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_that_is_none_or_lacks_the_language(language_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.bin").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"bad.bin: not a fastText model"):
        Cleaning(languages=("en",), language_model=tmp_path / "bad.bin").check()
    with pytest.raises(ValueError, match=r"does not know the language 'fr'; it knows 2: de, en"):
        Cleaning(languages=("fr",), language_model=language_model).check()


def test_a_missing_library_is_named_with_its_command() -> None:
    with pytest.raises(ValueError) as error:
        require_libraries("Unicode repair", "json", "a_library_that_is_not_there")
    expected = "Unicode repair needs a_library_that_is_not_there: pip install 'metro-t0[corpora]'"
    assert str(error.value) == expected


def test_words_and_sentences_of_several_scripts() -> None:
    assert split_words("Don't stop, well-known x2!") == ["Don't", "stop", ",", "well-known", "x2", "!"]
    assert split_words("1,234.5 in the U.S. at 10:30...") == [
        "1,234.5",
        "in",
        "the",
        "U.S.",
        "at",
        "10:30",
        "...",
    ]
    assert split_words("дом и сад. 日本語") == ["дом", "и", "сад", ".", "日", "本", "語"]
    assert split_sentences('He said "no." Then?\nYes.') == ['He said "no."', "Then?", "Yes."]
    assert split_sentences("終わり。始め。") == ["終わり。", "始め。"]
