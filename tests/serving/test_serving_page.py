"""The page in real Chromium: a person asks, with the mouse, with the keyboard, on a phone, in the dark."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_server import Server

from headless_chromium import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

TAB, ENTER = ("Tab", 9), ("Enter", 13)
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Browser]:
    """The page, opened; nothing on it fails, and nothing is asked of anyone but the server."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(server.url, width=1000)
    yield browser
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith((server.url, "data:"))] == []


def text(page: Browser, selector: str) -> str:
    found: str = page.evaluate(f"document.querySelector({selector!r}).innerText.trim()")
    return found


def texts(page: Browser, selector: str) -> list[str]:
    found: list[str] = page.evaluate(
        f"[...document.querySelectorAll({selector!r})].map(e => e.innerText.trim())"
    )
    return found


def await_answer(page: Browser) -> str:
    """What the status says when the page has finished asking."""
    deadline = time.monotonic() + 60
    while page.evaluate("document.getElementById('submit').disabled"):
        assert time.monotonic() < deadline, "there is no answer"
    return text(page, "#status")


def fill(page: Browser, prompt: str, choices: list[str]) -> None:
    page.evaluate("document.getElementById('prompt').focus()")
    page.type(prompt)
    for index, choice in enumerate(choices):
        if index >= page.evaluate("document.querySelectorAll('#choices input').length"):
            page.evaluate("document.getElementById('add').click()")
        page.evaluate(f"document.querySelectorAll('#choices input')[{index}].focus()")
        page.type(choice)


def test_choices_are_ranked_as_the_api_ranks_them(page: Browser, server: Server) -> None:
    choices = ["yes", "no", "the old clock", HOSTILE]
    fill(page, "does it follow that the river sold", choices)
    page.evaluate("document.getElementById('submit').click()")
    assert await_answer(page) == ""
    _, ranked = server.post("/rank", {"prompt": "does it follow that the river sold", "choices": choices})
    scores = ranked["answers"][0]["log_likelihoods"]
    order = sorted(range(4), key=lambda index: -scores[index])
    assert texts(page, "#bars .choice") == [choices[index] for index in order]
    assert text(page, "#bars .first .choice") == choices[ranked["answers"][0]["prediction"]]
    total = sum(math.exp(score) for score in scores)
    widths: list[float] = page.evaluate(
        "[...document.querySelectorAll('#bars .fill')].map(e => parseFloat(e.style.width))"
    )
    assert widths == pytest.approx([100 * math.exp(scores[index]) / total for index in order], abs=0.01)
    assert [
        f"({scores[index]:.2f})" in share for index, share in zip(order, texts(page, ".share"), strict=True)
    ]
    asked: dict[str, Any] = {"prompt": "does it follow that the river sold", "max_new_tokens": 32}
    assert text(page, "#answer") == server.post("/generate", asked)[1]["answers"][0]["output"]


def test_by_keyboard_alone(page: Browser) -> None:
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.type("which")
    page.press(*TAB)
    page.type("yes")
    page.press(*ENTER)
    page.type("no")
    page.press(*ENTER)
    page.type("maybe")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Choice 3"
    assert page.evaluate("document.getElementById('ranking').hidden"), "Enter does not ask yet"
    page.press(*ENTER, control=True)
    assert await_answer(page) == ""
    assert sorted(texts(page, "#bars .choice")) == ["maybe", "no", "yes"]
    page.press(*TAB)
    page.press(*ENTER)
    assert page.evaluate("[...document.querySelectorAll('#choices input')].map(e => e.value)") == [
        "yes",
        "no",
    ]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Choice 2"


def test_without_choices_it_only_writes(page: Browser, server: Server) -> None:
    fill(page, "the river", [])
    for name, value in (("max_new_tokens", 5), ("temperature", 1.5), ("seed", 3)):
        page.evaluate(f"document.getElementById({name!r}).value = {value}")
    page.press(*ENTER, control=True)
    assert await_answer(page) == ""
    assert page.evaluate("document.getElementById('ranking').hidden")
    asked = {"prompt": "the river", "max_new_tokens": 5, "temperature": 1.5, "seed": 3}
    assert text(page, "#answer") == server.post("/generate", asked)[1]["answers"][0]["output"]


def test_what_the_server_refuses_is_said(page: Browser) -> None:
    fill(page, "yes " * 200, ["yes"])
    page.press(*ENTER, control=True)
    assert "at most 128 are read" in await_answer(page)
    assert page.evaluate("document.getElementById('ranking').hidden")
    # Chromium reports every answer of 4xx on its console.
    assert all("413" in error for error in page.errors)
    page.errors.clear()


def test_an_empty_prompt_is_not_asked(page: Browser) -> None:
    page.evaluate("document.getElementById('submit').click()")
    assert page.evaluate("document.getElementById('prompt').matches(':invalid')")
    assert text(page, "#status") == ""


@pytest.mark.parametrize("width", [320, 390, 1000])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_and_is_legible(
    page: Browser, server: Server, width: int, dark: bool, tmp_path: Path
) -> None:
    page.prefer_dark(dark)
    page.open(server.url, width=width)
    fill(page, "does it follow that", ["yes", "no", "maybe " * 30, "a" * 100])
    page.press(*ENTER, control=True)
    assert await_answer(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")
    for element in ("body", ".muted", "#submit", "#answer", "#prompt"):
        assert page.evaluate(CONTRAST % json.dumps(element)) >= 4.5, element
    page.screenshot(tmp_path / "page.png")
    page.prefer_dark(False)


# WCAG's contrast of an element's text and what is behind it.
CONTRAST = """(() => {
  const element = document.querySelector(%s);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  let behind = element;
  while (behind && rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const light = (colour) => rgb(colour).slice(0, 3)
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const both = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
})()"""


def test_the_page_of_the_api_comes_from_its_document(page: Browser, server: Server) -> None:
    page.open(server.url + "docs", width=1000)
    deadline = time.monotonic() + 60
    while not texts(page, "h2"):
        assert time.monotonic() < deadline
    assert texts(page, "h2") == ["POST /generate", "POST /rank", "GET /healthz"]
    assert "max_new_tokens" in page.evaluate("document.querySelector('pre + section pre').textContent")
    assert server.url in text(page, "pre")


def test_files_come_with_a_policy(server: Server) -> None:
    for path, media_type in (("/", "text/html"), ("/docs", "text/html"), ("/page/ask.js", "text/javascript")):
        status, headers, body = server.request("GET", path)
        assert status == 200 and body
        assert headers["content-type"] == f"{media_type}; charset=utf-8"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert b"http://" not in body and b"https://" not in body
