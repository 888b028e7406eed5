"""Cleaning with the real packages, and a language model trained here on a few sentences."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from metro_t0.data.cleaning import QUALITY_FILTERS, Cleaned, Cleaning

ENGLISH = [
    "the owl sees the mouse in the night",
    "we have a tree and the wind is in it",
    "this is the house of owls",
]
GERMAN = [
    "die Eule sieht die Maus in der Nacht",
    "wir haben einen Baum und der Wind ist darin",
    "das ist das Haus",
]
PROSE = """The owl that lives in the old elm of our garden hunts with great patience when the night is quiet.
Nobody has seen it rest, and the people who pass by say that they have heard a call from its branches.
My mother keeps a list of every bird she noticed there since the spring, with the hour and the weather.
A raven came twice in April, stole bread from the kitchen, and was not shy of the dog at all.
Later in the year, thrushes ate what remained of the cherries, so we bought a net for the next harvest.
If you want to visit us, take the morning train and bring warm clothes to sit outside after supper."""


def test_nothing_is_done_unless_asked_for() -> None:
    assert Cleaning().open()("donâ€™t") == Cleaned("donâ€™t", None, False)


def test_unicode_is_repaired() -> None:
    pytest.importorskip("ftfy")
    cleaner = pickle.loads(pickle.dumps(Cleaning(repair_unicode=True))).open()
    assert cleaner("l'humanitÃ©") == Cleaned("l'humanité", None, True)
    assert cleaner("plain") == Cleaned("plain", None, False)


def test_languages_are_told_apart_by_a_model(tmp_path: Path) -> None:
    fasttext = pytest.importorskip("fasttext")
    lines = [f"__label__en {line}" for line in ENGLISH * 20] + [f"__label__de {line}" for line in GERMAN * 20]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    try:
        model = fasttext.train_supervised(str(tmp_path / "lines.txt"), epoch=50, dim=8, thread=1, verbose=0)
    except RuntimeError as error:
        pytest.skip(f"this build of fastText cannot train: {error}")
    model.save_model(str(tmp_path / "model.bin"))
    settings = Cleaning(languages=("en",), language_model=tmp_path / "model.bin")
    cleaner = settings.open()
    assert cleaner("the owl is in\nthe tree").text == "the owl is in\nthe tree"
    assert cleaner("die Eule ist in der Nacht") == Cleaned(None, "language: de", False)


def test_a_file_that_is_no_language_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    (tmp_path / "model.bin").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match=r"model\.bin: no fastText model"):
        Cleaning(languages=("en",), language_model=tmp_path / "model.bin").open()


@pytest.mark.parametrize("name", QUALITY_FILTERS)
def test_quality_filters_keep_prose_and_drop_rubbish(name: str) -> None:
    pytest.importorskip("datatrove")
    cleaner = Cleaning(quality=(name,)).open()
    assert cleaner(PROSE).dropped is None
    dropped = cleaner("\n".join(["buy now"] * 40)).dropped
    assert dropped is not None and dropped.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Cleaning(quality=("best",)), "no quality filter 'best'; there are gopher-quality"),
        (Cleaning(languages=("en",)), "needs a fastText model's file"),
        (
            Cleaning(languages=("en",), language_model=Path("missing.bin")),
            "missing.bin: no such language model",
        ),
        (Cleaning(language_threshold=2), "is a probability, not 2"),
    ],
)
def test_wrong_settings_are_one_line(settings: Cleaning, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings.check()
