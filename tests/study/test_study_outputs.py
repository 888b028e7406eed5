"""Tables and page of a study: the same numbers everywhere, the same bytes every time, safe with any name."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from made_records import AXES, write_made_study
from rich.console import Console

from headless_chromium import CHROMIUM, Browser
from metro_t0.study.comparison import compare_study
from metro_t0.study.outputs import markdown, terminal_tables, write_outputs

HOSTILE = '</script><img src=x onerror=alert(1)> | *x* {{ 7 * 7 }} & "q"'
FILES = ("table.md", "index.html", "comparison.json")


def truth(axis: str | None, value: str | None, seed: int) -> float:
    return {"on": 0.8, "0": 0.35}.get(value or "", 0.6)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sizes, a change with a hostile name, a run that diverged and one to be made."""
    out = write_made_study(
        tmp_path_factory.mktemp("outputs") / "out",
        truth,
        sizes=("narrow", "wide"),
        axes={**AXES, "mine": (HOSTILE, [HOSTILE])},
        failed=["wide/rtd-weight=100/seed-2"],
        unfinished=["wide/rtd-weight=10/seed-3"],
    )
    write_outputs(compare_study(out), out)
    return out


def terminal(out: Path) -> str:
    console = Console(file=StringIO(), width=200)
    for table in terminal_tables(compare_study(out)):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_same_records_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    shutil.copy(made / "study.json", tmp_path)
    shutil.copytree(made / "records", tmp_path / "records")
    write_outputs(compare_study(tmp_path), tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_every_form_shows_the_same_differences(made: Path) -> None:
    comparison = compare_study(made)
    page = html.unescape((made / "index.html").read_text())
    texts = [(made / "table.md").read_text(), page, terminal(made)]
    for row in comparison.rows:
        if row.axis is None:
            continue
        effect = row.effects["zero-shot"]
        points = f"{100 * effect.difference:+.1f}".replace("-", "−")
        assert all(points in text for text in texts), row.label
        assert all(effect.verdict in text for text in texts)
    values = json.loads((made / "comparison.json").read_text())
    assert values["rows"][1]["effects"]["zero-shot"]["verdict"] == "better"
    assert values["failed"] == [["wide/rtd-weight=100/seed-2", "diverged", "1 update that is not finite"]]
    for text in texts[:2]:
        assert "wide/rtd-weight=100/seed-2 diverged: 1 update that is not finite" in text
        assert "28 of 36 runs done" in text or "34 of 36 runs done, 1 failed" in text


def test_what_is_not_of_the_same_thing_is_marked(made: Path) -> None:
    """The gate weighs the decoder's loss, so that loss is no measure beside the base's; detection's is."""
    rows = {row.label: row for row in compare_study(made).rows}
    assert rows["rtd-gate: on"].not_comparable == ["lm_loss"]
    assert rows["rtd-weight: 0"].not_comparable == rows["base"].not_comparable == []
    lines = (made / "table.md").read_text().splitlines()
    measured = [line for line in lines if line.startswith("| rtd-gate: on | 2M")]
    assert len(measured) == 2 and all(line.count(r"\*") == 1 for line in measured)
    assert "Marked *" in (made / "index.html").read_text()


def test_what_is_inside_is_told_with_its_spread_over_seeds(made: Path) -> None:
    """Shares of layers are means over a stack's; the diverged run has none."""
    [of_gate, _] = [row for row in compare_study(made).rows if row.label == "rtd-gate: on"]
    units, sensitivity = of_gate.insides.values()
    assert units["encoder: firing"] == pytest.approx([0.3] * 3) and units["decoder: firing"] == [0.1] * 3
    assert sensitivity["Gini"] == pytest.approx([0.81, 0.82, 0.83])
    lines = (
        (made / "table.md").read_text().split("**narrow: sensitivity of the pretrained model, metro loss**")
    )
    assert (
        "| rtd-gate: on | 0.820 ± 0.010 | 8.2\N{NO-BREAK SPACE}% ± 0.1 |"
        in lines[1].split("**")[0].splitlines()
    )
    page = html.unescape((made / "index.html").read_text())
    assert page.count('<td class="number">0.820 ± 0.010</td>') == 6 and "0.820 ± 0.010" in terminal(made)


def test_markdown_tables_are_tables_whatever_a_change_is_called(made: Path) -> None:
    for block in markdown(compare_study(made)).split("\n\n"):
        if block.startswith("|"):
            bars = {line.replace(r"\|", "").count("|") for line in block.splitlines()}
            assert len(bars) == 1


def test_names_are_text_on_the_page(made: Path) -> None:
    page = (made / "index.html").read_text()
    assert "<img" not in page and "{{ 7" in page and "<script" not in page


def test_a_study_without_a_finished_run_has_a_page_too(tmp_path: Path) -> None:
    every = [f"one-size/{arm}/seed-1" for arm in ("base", "rtd-gate=on")]
    axes = {"rtd-gate": AXES["rtd-gate"]}
    write_made_study(tmp_path, truth, seeds=[1], axes=axes, unfinished=every)
    write_outputs(compare_study(tmp_path), tmp_path)
    assert "No change can be compared" in (tmp_path / "index.html").read_text()
    assert "0 of 2 runs done" in (tmp_path / "table.md").read_text()
    # Of a change without its base there is a score, and no difference.
    write_made_study(tmp_path / "b", truth, seeds=[1], axes=axes, unfinished=every[:1])
    write_outputs(compare_study(tmp_path / "b"), tmp_path / "b")
    assert "rtd-gate: on" in (tmp_path / "b" / "table.md").read_text()


def test_a_real_study_has_its_page(made_study: Path) -> None:
    write_outputs(compare_study(made_study), made_study)
    page = (made_study / "index.html").read_text()
    assert "diverged" in page and "Gini" in page and "one seed" in page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_loads_nothing_and_complains_of_nothing(
    made: Path, browser: Browser, width: int, dark: bool
) -> None:
    browser.errors.clear()
    browser.requests.clear()
    browser.prefer_dark(dark)
    browser.open(made / "index.html", width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelectorAll('svg').length") > 10
    assert browser.errors == [] and all(url.startswith(("file:", "data:")) for url in browser.requests)
