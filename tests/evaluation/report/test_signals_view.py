"""Figures of many metrics, and samples token by token: what is counted, what is left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import HOSTILE, write_lines, write_run
from signal_runs import POINTS, STORY, write_signal_run

from metro_t0.evaluation.records import read_run
from metro_t0.evaluation.report.page import write_report
from metro_t0.evaluation.report.run_view import run_view
from metro_t0.evaluation.report.samples_view import samples_view
from metro_t0.evaluation.report.signals_view import activation_lines, calibration_error, reliability_lines


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_signal_run(tmp_path / "run")


def test_the_calibration_error_is_the_mean_distance_over_tokens(run: Path) -> None:
    steps, errors = calibration_error(read_run(run))
    assert steps.tolist() == list(range(50, 601, 50))
    assert errors.tolist() == pytest.approx([0.04 * (1 - step / 600) for step in steps])


def test_reliability_is_drawn_three_times_without_rare_bins(run: Path) -> None:
    diagonal, *drawn = reliability_lines(read_run(run))
    assert [line.name for line in drawn] == ["update 50", "update 350", "update 600"]
    assert all(len(line.x) == 9 for line in drawn), "the tenth bin holds nothing"
    assert drawn[-1].y.tolist() == pytest.approx(drawn[-1].x.tolist())
    assert diagonal.x.tolist() == diagonal.y.tolist() == [0.0, 0.9]


def test_layers_are_in_order_on_a_scale(run: Path) -> None:
    lines = activation_lines(read_run(run))
    assert list(lines) == ["encoder", "decoder", "auxiliary"]
    assert [line.label for line in lines["encoder"]] == [str(layer) for layer in range(12)]
    ramp = [line.ramp for line in lines["decoder"]]
    assert ramp[0] == 0 and ramp[-1] == 7 and ramp == sorted(ramp)  # type: ignore[type-var]


def test_figures_stand_under_headings_and_each_metric_once(run: Path) -> None:
    view = run_view(read_run(run))
    titles = {group["title"]: [figure["title"] for figure in group["figures"]] for group in view["groups"]}
    assert titles["Replaced-token detection (RTD)"] == ["Hits", "Calibration", "Expected calibration error"]
    assert titles["Inside the network"] == [
        "Gradient norm",
        "Gradient norm by part",
        "Activation by layer: encoder",
        "Activation by layer: decoder",
        "Activation by layer: auxiliary model",
    ]
    assert titles["The run"] == ["Speed", "Learning rate"], "nothing is drawn a second time as logged"
    parts = view["groups"][3]["figures"][1]
    assert [line.label for line in parts["lines"]] == ["1", "2", "3", "4", "5"]
    assert len({line.paint for line in parts["lines"]}) == 5


def test_a_run_without_signals_has_no_empty_headings(tmp_path: Path) -> None:
    view = run_view(read_run(write_run(tmp_path / "run", objective="prompted")))
    titles = [group["title"] for group in view["groups"]]
    assert "Replaced-token detection (RTD)" not in titles and all(
        group["figures"] for group in view["groups"]
    )
    assert view["samples"] == []


def test_a_token_says_what_happened_to_it(run: Path) -> None:
    *_, last = samples_view(read_run(run))
    tokens = last["rows"][0]["tokens"]
    assert [token.verdict for token in tokens] == ["", "found", "", "", "missed", "false alarm", "found"]
    assert [token.text for token in tokens[:6]] == ["the", "heart", "is", "a", "pump", "s"]
    assert [token.begins_word for token in tokens[4:6]] == [True, False]
    assert tokens[1].written == "head" and tokens[1].restored_right and not tokens[4].restored_right
    assert tokens[3].masked and not tokens[3].replaced
    assert tokens[4].remark == (
        "original: pump; the auxiliary model wrote: muscle; RTD: replaced with 22 %; the decoder: part (wrong)"
    )
    assert last["rows"][0]["summary"] == (
        "4 of 7 tokens masked, 3 replaced; RTD found 2 of 3, with 1 false alarm; the decoder has 2 of 4 right."
    )


def test_without_a_head_the_summary_says_nothing_of_it(run: Path) -> None:
    line = json.loads((run / "samples.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    for row in line["rows"]:
        row["detection"] = [None] * len(STORY)
    write_lines(run / "samples.jsonl", [line])
    (point,) = samples_view(read_run(run))
    assert "RTD" not in point["rows"][0]["summary"]
    assert {token.verdict for token in point["rows"][0]["tokens"]} == {""}
    assert "&lt;/script&gt;" in write_report([run], run / "page.html").read_text(encoding="utf-8")


def test_of_a_step_sampled_twice_the_later_line_stands_and_half_a_line_is_left_out(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    again = {**lines[1], "rows": lines[3]["rows"]}
    write_lines(run / "samples.jsonl", [*lines, again])
    with (run / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 700, "ro')
    samples = read_run(run).samples
    assert [line["step"] for line in samples] == list(POINTS)
    assert samples[1]["rows"] == lines[3]["rows"]


@pytest.mark.parametrize(
    "broken",
    [
        {"rows": []},
        {"step": 1, "rows": {}},
        {"step": 1, "rows": [{"original": ["a"]}]},
        {
            "step": 1,
            "rows": [
                {"original": ["a"], "masked": [True], "replaced": [], "detection": [0.1], "restored": ["a"]}
            ],
        },
        {
            "step": 1,
            "rows": [
                {"original": [3], "masked": [True], "replaced": [None], "detection": [0.1], "restored": ["a"]}
            ],
        },
    ],
    ids=str,
)
def test_what_is_no_sample_is_named_by_its_line(run: Path, broken: dict[str, Any]) -> None:
    with (run / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(broken) + "\n")
    with pytest.raises(ValueError, match=r"samples\.jsonl, line 5: not a step and rows of samples"):
        read_run(run)


def test_hostile_tokens_are_escaped(run: Path) -> None:
    text = write_report([run], run / "page.html").read_text(encoding="utf-8")
    assert HOSTILE not in text and "<b>bold" not in text and "&lt;b&gt;bold&lt;/b&gt;" in text
