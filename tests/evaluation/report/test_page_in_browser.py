"""The page of evaluations in a real browser: tables sort, published rows are picked, predictions are leafed through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import HOSTILE, T0_TASKS, PlannedTask, write_evaluation

from headless_chromium import CHROMIUM, Browser
from metro_t0.evaluation.report.page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

HOSTILE_TASK = PlannedTask(HOSTILE, 0.4, ["yes", "no"], 2, 30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(autouse=True)
def nothing_goes_wrong(browser: Browser) -> Iterator[None]:
    browser.errors.clear()
    browser.requests.clear()
    yield
    assert browser.errors == [], "no error, no dialog of a script that hostile text brought along"
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def t0_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t0")
    missing = write_evaluation(folder / "a", T0_TASKS, suite="t0", missing=["StoryCloze"], failing=["COPA"])
    return write_report([], folder / "page.html", evaluation=missing, published=["METRO-T0 BASE"])


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluations of a hostile task and a harmless one."""
    folder = tmp_path_factory.mktemp("small")
    tasks = (HOSTILE_TASK, PlannedTask("CB", 0.5, ["Yes", "No", "Maybe"], 1, 20))
    evaluations = [
        write_evaluation(folder / name, tasks, skill=skill) for name, skill in (("a", 0), ("b", 0.2))
    ]
    return write_report([], folder / "page.html", evaluation=evaluations)


def texts(browser: Browser, selector: str) -> list[str]:
    """What is to be read in the visible elements."""
    found: list[str] = browser.evaluate(
        f"[...document.querySelectorAll({selector!r})].filter(e => e.offsetParent).map(e => e.innerText.trim())"
    )
    return found


def choose(browser: Browser, name: str, value: str) -> None:
    """Sets a filter as a hand would: the value, then the event."""
    browser.evaluate(
        f"(() => {{ const e = document.getElementById('filters').elements[{name!r}]; e.value = {value!r};"
        " e.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def names(browser: Browser) -> list[str]:
    return [text.split("\n")[0].split(" supervised")[0] for text in texts(browser, ".results tbody th")]


def test_tables_sort_by_click_and_by_key(browser: Browser, t0_page: Path) -> None:
    browser.open(t0_page, width=1280)
    order = [task.name for task in T0_TASKS]
    assert names(browser) == [*order, "Mean over 9 of 11 rows"]
    browser.evaluate("document.querySelectorAll('.results th button')[1].click()")
    accuracy = ".results tbody tr:not(.absent, .total) td:nth-child(2)"
    scores = [float(text.split()[0]) for text in texts(browser, accuracy)]
    assert scores == sorted(scores, reverse=True) and len(scores) == 9
    assert names(browser)[-3:] == ["COPA", "StoryCloze", "Mean over 9 of 11 rows"], (
        "what has no score stays below"
    )
    heading = "document.querySelectorAll('.results th button')[1].parentElement.getAttribute('aria-sort')"
    assert browser.evaluate(heading) == "descending"
    browser.evaluate("document.querySelectorAll('.results th button')[1].focus()")
    browser.press("Enter", 13)
    assert browser.evaluate(heading) == "ascending"
    assert [float(text.split()[0]) for text in texts(browser, accuracy)] == sorted(scores)
    browser.evaluate("document.querySelectorAll('.results th button')[0].click()")
    assert names(browser)[:3] == ["ANLI R1", "ANLI R2", "ANLI R3"]
    assert browser.evaluate("document.querySelectorAll('.results [aria-sort]').length") == 1


def test_published_rows_are_picked(browser: Browser, t0_page: Path) -> None:
    browser.open(t0_page, width=1280)
    rows = "#published-table tbody th"
    assert texts(browser, rows) == ["runs/finetune/model", "METRO-T0 BASE"]
    browser.evaluate("document.querySelector('.picker').open = true")
    browser.evaluate("document.querySelector('[data-published=\"T0 11B (Sanh)\"]').click()")
    browser.evaluate("document.querySelector('[data-published=\"METRO-T0 BASE\"]').click()")
    assert texts(browser, rows) == ["runs/finetune/model", "T0 11B (Sanh)"]
    average, common = texts(browser, "#published-table tbody tr:not([hidden]) td.average")[2:]
    assert average == "60.77"
    t0 = [80.83, 70.12, 43.56, 38.68, 41.26, 61.45, 59.94, 33.58, 56.58]
    assert common == f"{sum(t0) / 9:.2f}", "over the rows that one has oneself"


def test_predictions_are_filtered_and_ordered(browser: Browser, small_page: Path) -> None:
    browser.open(small_page, width=1280)
    found = "#found"
    assert texts(browser, found)[0].startswith("160 of those on this page")
    assert len(texts(browser, "#cards .example")) == 12
    browser.evaluate("document.getElementById('more').click()")
    assert len(texts(browser, "#cards .example")) == 24
    choose(browser, "model", "=b")
    assert texts(browser, found)[0].startswith("80 of those")
    choose(browser, "task", "=CB")
    assert texts(browser, found)[0].startswith("20 of those")
    choose(browser, "outcome", "wrong")
    assert set(texts(browser, "#cards header span:last-child")) == {"✗ wrong"}
    gaps = gap_of_cards(browser)
    assert len(gaps) > 2 and gaps == sorted(gaps), "the most confident mistakes come first"
    choose(browser, "gold", "=Maybe")
    assert all("Maybecorrect" in text.replace("\n", "") for text in texts(browser, "#cards .choices"))
    choose(browser, "outcome", "")
    choose(browser, "gold", "")
    choose(browser, "text", "QUESTION 7.")
    assert [text.split("·")[2].strip() for text in texts(browser, "#cards header span:first-child")] == [
        "row 8"
    ]
    choose(browser, "text", "nowhere to be found")
    assert texts(browser, found) == ["None of those on this page."]


def test_prompts_that_models_answer_differently_are_found(browser: Browser, small_page: Path) -> None:
    browser.open(small_page, width=1280)
    choose(browser, "outcome", "disputed")
    choose(browser, "order", "row")
    heads = [text.rsplit(" · ", 1) for text in texts(browser, "#cards header span:first-child")]
    outcomes = texts(browser, "#cards header span:last-child")
    assert len(heads) == 12
    for place in range(0, 12, 2):
        (question, first), (same, second) = heads[place : place + 2]
        assert question == same and (first, second) == ("a", "b"), "the same prompt, side by side"
        assert set(outcomes[place : place + 2]) == {"✓ right", "✗ wrong"}


def gap_of_cards(browser: Browser) -> list[float]:
    """Share of the correct answer less that of the chosen one, a card."""
    gaps: list[float] = browser.evaluate(
        "[...document.querySelectorAll('#cards .example')].map(card => {"
        " const width = (mark) => parseFloat(card.querySelector('.mark.' + mark).closest('li')"
        ".querySelector('.fill').style.width);"
        " return width('correct') - width('predicted'); })"
    )
    return gaps


def test_hostile_text_is_text(browser: Browser, small_page: Path) -> None:
    browser.open(small_page, width=1280)
    choose(browser, "task", "=" + HOSTILE)
    assert texts(browser, "#found")[0].startswith("120 of those")
    prompts = texts(browser, "#cards .prompt")
    assert len(prompts) == 12 and all(
        " ".join(HOSTILE.split()) in " ".join(prompt.split()) for prompt in prompts
    )
    assert browser.evaluate("document.querySelectorAll('main img, main script:not([type])').length") == 0


def test_the_policy_lets_no_other_script_run(browser: Browser, small_page: Path, tmp_path: Path) -> None:
    """Were anything left unescaped after all, the browser would refuse to run it."""
    page = small_page.read_text(encoding="utf-8")
    holed = tmp_path / "holed.html"
    holed.write_text(
        page.replace("<main", "<script>document.title = 'taken'</script><main", 1), encoding="utf-8"
    )
    browser.open(holed, width=1280)
    assert browser.evaluate("document.title") == "METRO-T0 report"
    assert any("Content Security Policy" in error for error in browser.errors)
    browser.errors.clear()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_hangs_over_the_edge(browser: Browser, t0_page: Path, small_page: Path, width: int) -> None:
    for page in (t0_page, small_page):
        browser.open(page, width=width)
        widths: list[Any] = browser.evaluate(
            "(e => [e.scrollWidth, e.clientWidth])(document.documentElement)"
        )
        assert widths[0] == widths[1] <= width, "no sideways scrolling"
        beyond = browser.evaluate(
            "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
            " && !e.closest('svg, .scroll')).map(e => e.className + ': ' + e.textContent.slice(0, 40))"
        )
        assert beyond == []
        assert browser.evaluate("document.querySelector('.results th button').offsetHeight") > 2
