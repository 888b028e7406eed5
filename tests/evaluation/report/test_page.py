"""The page as a file, and as a browser shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_folders import HOSTILE, write_lines

from headless_chromium import CHROMIUM, Browser
from metro_t0.evaluation.report.page import write_report
from parsed_pages import ParsedPage


@pytest.fixture
def page_path(pretraining_run: Path, finetuning_run: Path, evaluation_folder: Path, tmp_path: Path) -> Path:
    return write_report(
        [pretraining_run, finetuning_run], tmp_path / "pages" / "report.html", evaluation=evaluation_folder
    )


def test_page_says_what_came_out(page_path: Path) -> None:
    page = ParsedPage(page_path.read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    results = json.loads((page_path.parents[1] / "evaluation" / "results.json").read_text())
    assert f"{100 * results['overall']['mean']:.1f}\N{NO-BREAK SPACE}%" in page.text
    for task in results["tasks"]:
        assert " ".join(task["task"].split()) in text
        assert f"{100 * task['mean']:.1f}" in text
    assert "METRO pretraining" in text and "Prompt-finetuning" in text
    assert "Replaced-token detection: loss" in text and "Auxiliary model: accuracy" in text
    assert "open-ended: no choices" in text, "skipped templates are listed"
    assert "30 of 2,400 prompts were longer" in text
    assert "240 of 1,000 rows" in text and "supervised" in text
    assert "Generated answers" in text and "31.2\N{NO-BREAK SPACE}%" in page.text
    assert "Of 400 predictions computed in float32 as well, 3" in text
    assert "All 2,400 predictions." in text
    assert sum(tag == "svg" and a.get("class") == "chart" for tag, a in page.tags) >= 11 + 6


def test_page_is_self_contained_and_escapes_everything(page_path: Path) -> None:
    page = ParsedPage(page_path.read_text(encoding="utf-8"))
    names = {tag for tag, _ in page.tags}
    assert not names & {"img", "iframe", "object", "embed", "base"}
    assert HOSTILE in page.text, "hostile text is shown as it is, unrendered"
    sample, script = (attributes for tag, attributes in page.tags if tag == "script")
    assert sample == {"type": "application/json", "id": "sample"} and script == {}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"<{tag} {name}=...>"
            if name in ("href", "src"):
                assert value is not None and value.startswith(("#", "data:"))


def test_runs_alone_and_evaluation_alone(
    pretraining_run: Path, evaluation_folder: Path, tmp_path: Path
) -> None:
    alone = ParsedPage(write_report([pretraining_run], tmp_path / "a.html", title="Mine & only").read_text())
    assert "Mine & only" in alone.text and "Zero-shot results" not in alone.text
    results = ParsedPage(write_report([], tmp_path / "b.html", evaluation=evaluation_folder).read_text())
    assert "Zero-shot results" in results.text and "updates" not in results.text


def test_a_run_that_was_killed_or_diverged_can_be_shown(tmp_path: Path) -> None:
    run = tmp_path / "cut"
    run.mkdir()
    lines = [
        {"kind": "train", "step": step, "loss": value, "skipped_updates": 1}
        for step, value in ((1, 9.5), (2, float("nan")), (3, 8.0))
    ]
    write_lines(run / "metrics.jsonl", lines)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "ste')
    text = ParsedPage(write_report([run], tmp_path / "report.html").read_text()).text
    assert "train: 9.5 → 8" in text and "updates skipped, not finite" in text
    (run / "metrics.jsonl").write_text("")
    assert (
        "Nothing was logged yet" in ParsedPage(write_report([run], tmp_path / "report.html").read_text()).text
    )


def test_an_unknown_metric_gets_a_figure_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_lines(run / "metrics.jsonl", [{"kind": "train", "step": s, "peak_memory": 3.0 * s} for s in (1, 2)])
    assert "peak_memory" in ParsedPage(write_report([run], tmp_path / "report.html").read_text()).text


def test_mistakes_are_named_and_leave_the_old_page(pretraining_run: Path, tmp_path: Path) -> None:
    out = write_report([pretraining_run], tmp_path / "pages" / "report.html")
    before = out.read_bytes()
    with pytest.raises(ValueError, match="no run at"):
        write_report([tmp_path / "nowhere"], out)
    with pytest.raises(ValueError, match=r"holds no metrics\.jsonl"):
        write_report([tmp_path], out)
    with pytest.raises(ValueError, match=r"holds no results\.json"):
        write_report([], out, evaluation=tmp_path)
    with pytest.raises(ValueError, match="nothing to report"):
        write_report([], out)
    lines = (pretraining_run / "metrics.jsonl").read_text().splitlines()
    lines[2] = "{broken"
    (pretraining_run / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 3"):
        write_report([pretraining_run], out)
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["report.html"], (
        "nothing half-written is left beside it"
    )


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_page_in_a_browser(page_path: Path) -> None:
    with Browser() as browser:
        for width in (390, 1280):
            browser.open(page_path, width=width)
            widths = browser.evaluate("(e => [e.scrollWidth, e.clientWidth])(document.documentElement)")
            assert widths[0] == widths[1] <= width, "no sideways scrolling"
            beyond = browser.evaluate(
                "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
                " && !e.closest('svg, .scroll')).map(e => e.className + ': ' + e.textContent.slice(0, 40))"
            )
            assert beyond == [], "nothing hangs over the edge"
            for selector in (
                "h1",
                "table.results",
                "table.results .strip",
                "svg.chart",
                ".example .fill",
                ".matrix td",
            ):
                box = browser.evaluate(
                    f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
                    " return [b.width, b.height] })()"
                )
                assert min(box) > 2, f"{selector} is visible at {width} pixels"
            smallest = browser.evaluate(
                "Math.min(...[...document.querySelectorAll('svg.chart text')]"
                ".map(t => t.getBoundingClientRect().height))"
            )
            assert smallest >= 9, "axis labels stay readable"
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
