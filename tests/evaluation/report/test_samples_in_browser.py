"""The viewer of samples in a real browser: points of training by click and by key, and text that stays text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluation_folders import HOSTILE
from signal_runs import POINTS, STORY, write_signal_run

from headless_chromium import CHROMIUM, Browser
from metro_t0.evaluation.report.page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

SHOWN = "[...document.querySelectorAll('.samples [data-point]')].filter(e => e.offsetParent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, so that the points of one are not those of the other."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [write_signal_run(folder / name) for name in ("a", "b")]
    return write_report(runs, folder / "page.html")


@pytest.fixture(autouse=True)
def nothing_goes_wrong(browser: Browser) -> Iterator[None]:
    browser.errors.clear()
    browser.requests.clear()
    yield
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


def shown(browser: Browser) -> list[str]:
    found: list[str] = browser.evaluate(f"{SHOWN}.map(e => e.querySelector('.note').innerText)")
    return found


def test_the_last_point_shows_and_others_by_click_and_by_key(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    assert shown(browser) == ["After update 600.", "After update 600."]
    labels = browser.evaluate(
        "[...document.querySelectorAll('.points')[0].innerText.matchAll(/\\d+/g)].map(m => +m[0])"
    )
    assert labels == list(POINTS)
    browser.evaluate("document.querySelectorAll('.points')[0].querySelector('input').click()")
    assert shown(browser) == ["After update 0.", "After update 600."]
    browser.evaluate("document.querySelectorAll('.points')[0].querySelector('input').focus()")
    browser.press("ArrowRight", 39)
    assert shown(browser) == ["After update 50.", "After update 600."]
    outline = browser.evaluate(
        "getComputedStyle(document.querySelector('input:checked + span')).outlineStyle"
    )
    assert outline == "solid", "one sees where the focus is"


def test_marks_say_what_colour_says(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    tokens = browser.evaluate(
        f"{SHOWN}.map(e => [...e.querySelectorAll('.tokens .token')].map(t => t.innerText))"
    )
    found, missed, alarm = (tokens[0][place].split("\n") for place in (1, 4, 5))
    assert found == ["heart", "head", "✓ 91", "→ heart ✓"]
    assert missed == ["pump", "muscle", "✗ 22", "→ part ✗"]
    assert alarm == ["s", "! 71"]
    bars = browser.evaluate(
        f"[...{SHOWN}[0].querySelectorAll('.token')].map(t => getComputedStyle(t).backgroundSize)"
    )
    wide = [float(bar.split("%")[0].split("* ")[-1].removeprefix("calc(")) for bar in bars[: len(STORY)]]
    assert wide == pytest.approx([100 * story[2] for story in STORY], abs=0.1)


def test_hostile_text_is_text(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    text = browser.evaluate(f"{SHOWN}[0].querySelectorAll('.token')[6].querySelector('del').textContent")
    assert text == HOSTILE
    assert browser.evaluate("document.querySelectorAll('main img, main script, .token b b').length") == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_hangs_over_the_edge_and_everything_can_be_read(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.prefer_dark(dark)
    browser.open(page, width=width)
    widths = browser.evaluate("(e => [e.scrollWidth, e.clientWidth])(document.documentElement)")
    assert widths[0] == widths[1] <= width
    colours = browser.evaluate(
        "[...document.querySelectorAll('svg.chart .curve')].map(e => getComputedStyle(e).stroke)"
    )
    assert "none" not in colours and len(set(colours)) >= 8 + 5, "the scale and the colours are there"


def test_without_the_script_the_last_point_shows(browser: Browser, page: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.html"
    text = page.read_text(encoding="utf-8")
    plain.write_text(text[: text.rindex("<script>")] + "</body></html>", encoding="utf-8")
    browser.open(plain, width=1280)
    assert shown(browser) == ["After update 600.", "After update 600."]
    assert browser.evaluate("document.querySelector('.points').offsetParent") is None
