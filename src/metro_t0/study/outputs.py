"""A study's outcome for people: tables in the terminal and in Markdown, and one page.

    write_outputs(compare_study(out), out)         # table.md, index.html, comparison.json
    for table in terminal_tables(comparison):
        console.print(table)

All three show the same numbers, from the records alone; the same records give the same files, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metro_t0 import __version__
from metro_t0.evaluation.records import write_text
from metro_t0.evaluation.report import charts
from metro_t0.evaluation.report.comparison_view import points_text
from metro_t0.evaluation.report.page import page_environment
from metro_t0.evaluation.report.run_view import duration
from metro_t0.study.comparison import Row, StudyComparison, deviation_of
from metro_t0.study.plan import ONE_SIZE

if TYPE_CHECKING:
    from rich.table import Table

_LEAST_REACH = 0.02
_MOST_LINES = 4
# Of what a validation measures, what a table shows: (metric, heading, as a percentage).
_MEASURED = (
    ("lm_loss", "LM loss", False),
    ("lm_loss_replaced", "on replaced", False),
    ("lm_accuracy_all", "decoder right", True),
    ("replace_ratio", "replaced", True),
    ("rtd_recall", "found", True),
    ("rtd_precision", "rightly called", True),
    ("rtd_loss", "RTD loss", False),
)
_CURVES: tuple[tuple[str, str, charts.Unit], ...] = (
    ("lm_loss_replaced", "loss of the decoder on replaced tokens", "number"),
    ("rtd_recall", "replaced tokens found", "percent"),
)
_OTHER_TOKENS = (
    "Marked *: of other tokens than the base's, or counted otherwise, so not to be compared with it. On replaced: the "
    "decoder's loss where the auxiliary model wrote another token, without the gate."
)
_VERDICTS = {"better": "above", "worse": "below", "within noise": "within"}


def write_outputs(comparison: StudyComparison, out: Path) -> None:
    """Write ``table.md``, ``index.html`` and ``comparison.json``; older ones are replaced."""
    values = json.dumps(comparison.as_values(), indent=1, ensure_ascii=False)
    page = page_environment("study/templates").get_template("study.html.jinja")
    write_text(out / "comparison.json", values + "\n")
    write_text(out / "table.md", markdown(comparison))
    write_text(out / "index.html", page.render(**_view(comparison)))


def markdown(comparison: StudyComparison) -> str:
    """All tables in Markdown, under headings of the third level."""
    parts = [f"### {comparison.study['study']['name']}: {progress(comparison)}"]
    for title, heads, rows in _tables(comparison):
        marks = ["---", *("--:" for _ in heads[1:])]
        lines = [f"| {' | '.join(map(_markdown, cells))} |" for cells in (heads, marks, *rows)]
        parts.append(f"**{title}**\n\n" + "\n".join(lines))
    if any(row.not_comparable for row in comparison.rows):
        parts.append(_markdown(_OTHER_TOKENS))
    for name, status, reason in comparison.failed:
        parts.append(_markdown(f"{name} {status}: {reason}"))
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def terminal_tables(comparison: StudyComparison) -> Iterator[Table]:
    """The same tables for the terminal."""
    from rich import box
    from rich.table import Table

    for title, heads, rows in _tables(comparison):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for number, head in enumerate(heads):
            table.add_column(
                head, justify="left" if number == 0 else "right", min_width=20 if number == 0 else None
            )
        for cells in rows:
            table.add_row(*cells)
        yield table


def progress(comparison: StudyComparison) -> str:
    """How many of the planned runs are there."""
    planned = len(comparison.study["runs"])
    failed = f", {len(comparison.failed)} failed" if comparison.failed else ""
    return f"{len(comparison.records)} of {planned} runs done{failed}"


def _tables(comparison: StudyComparison) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, headings and cells of every table."""
    for size, rows in _by_size(comparison):
        where = "" if size == ONE_SIZE else f"{size}: "
        for finetuning in _finetunings(comparison):
            heads = ["change", "seeds", "accuracy", "difference (95 %)", "over seeds", "says"]
            guess = charts.format_value(rows[0].chance[finetuning], "percent")
            yield (
                f"{where}{finetuning} (a guess is right in {guess})",
                heads,
                [_effect_cells(row, finetuning) for row in rows if finetuning in row.accuracy],
            )
        measured = _measured(rows)
        if measured:
            yield (
                f"{where}pretraining, held out",
                ["change", "tokens", *(heading for _, heading, _ in measured)],
                [
                    [
                        row.label,
                        charts.format_value(row.tokens),
                        *(_measured_cell(row, metric, share) for metric, _, share in measured),
                    ]
                    for row in rows
                ],
            )
        for title, heads, cells in _insides(rows):
            yield f"{where}{title}", heads, cells


def _effect_cells(row: Row, finetuning: str) -> list[str]:
    """Label, seeds, accuracy, difference with its interval, standard deviation over seeds, verdict."""
    accuracies = row.accuracy[finetuning]
    mean = charts.format_value(sum(accuracies) / len(accuracies), "percent")
    effect = row.effects.get(finetuning)
    if effect is None:
        deviation = deviation_of(accuracies)
        difference, verdict = "", ""
    else:
        low, high = (points_text(end) for end in effect.interval)
        deviation = effect.deviation
        difference, verdict = f"{points_text(effect.difference)} ({low} to {high})", effect.verdict
    spread = "one seed" if deviation is None else f"± {100 * deviation:.1f}"
    return [row.label, str(len(row.seeds)), mean, difference, spread, verdict]


def _measured(rows: Sequence[Row]) -> list[tuple[str, str, bool]]:
    return [one for one in _MEASURED if any(one[0] in row.pretraining for row in rows)]


def _measured_cell(row: Row, metric: str, share: bool) -> str:
    value = row.pretraining.get(metric)
    if value is None:
        return "–"
    mark = "*" if metric in row.not_comparable else ""
    # Losses in columns: each with three digits, zeros at the end too.
    return (charts.format_value(value, "percent") if share else f"{value:#.3g}") + mark


def _insides(rows: Sequence[Row]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """A table of each thing that the analyses looked at, of the rows that it was looked at in."""
    for looked_at in dict.fromkeys(name for row in rows for name in row.insides):
        found = [(row.label, row.insides[looked_at]) for row in rows if looked_at in row.insides]
        measures = list(found[0][1])
        cells = [[label, *(_inside_cell(name, values[name]) for name in measures)] for label, values in found]
        yield looked_at, ["change", *measures], cells


def _inside_cell(measure: str, values: Sequence[float]) -> str:
    """The mean over runs, and how far they lie apart."""
    mean = sum(values) / len(values)
    deviation = deviation_of(values)
    if "Gini" in measure:
        return f"{mean:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")
    return charts.format_value(mean, "percent") + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _by_size(comparison: StudyComparison) -> list[tuple[str, list[Row]]]:
    sizes = list(dict.fromkeys(row.size for row in comparison.rows))
    return [(size, [row for row in comparison.rows if row.size == size]) for size in sizes]


def _finetunings(comparison: StudyComparison) -> list[str]:
    return list(dict.fromkeys(name for row in comparison.rows for name in row.accuracy))


# ---- the page --------------------------------------------------------------------------------------------


def _view(comparison: StudyComparison) -> dict[str, Any]:
    study = comparison.study["study"]
    reach = _reach(comparison)
    sizes = [
        {
            "name": None if size == ONE_SIZE else size,
            "tables": [
                {
                    "finetuning": finetuning,
                    "chance": rows[0].chance.get(finetuning),
                    "rows": [
                        _row_view(comparison, row, finetuning, reach)
                        for row in rows
                        if finetuning in row.accuracy
                    ],
                }
                for finetuning in _finetunings(comparison)
                if finetuning in rows[0].accuracy
            ],
            "measured": [heading for _, heading, _ in _measured(rows)],
            "pretraining": [
                {
                    "label": row.label,
                    "tokens": row.tokens,
                    "flops": row.flops,
                    "seconds": row.seconds,
                    "cells": [_measured_cell(row, metric, share) for metric, _, share in _measured(rows)],
                }
                for row in rows
            ],
            "curves": list(_curves(comparison, size)),
            "insides": list(_insides(rows)),
        }
        for size, rows in _by_size(comparison)
    ]
    return {
        "title": f"Study {study['name']}",
        "headline": _headline(comparison),
        "progress": progress(comparison),
        "facts": _facts(comparison),
        "sizes": sizes,
        "trends": _trends(comparison),
        "other_tokens": _OTHER_TOKENS if any(row.not_comparable for row in comparison.rows) else None,
        "reach": reach,
        "failed": comparison.failed,
        "unfinished": comparison.unfinished,
        "same_as_base": comparison.study["same_as_base"],
        "study": json.dumps(study, indent=2, ensure_ascii=False),
        "version": __version__,
    }


def _headline(comparison: StudyComparison) -> str:
    effects = [effect for row in comparison.rows for effect in row.effects.values()]
    if not effects:
        return "No change can be compared with the base yet"
    sure = sum(effect.verdict != "within noise" for effect in effects)
    return f"{sure} of {len(effects)} differences are more than noise"


def _facts(comparison: StudyComparison) -> list[tuple[str, str]]:
    study = comparison.study["study"]
    seconds = sum(float(record.values["seconds_here"]) for record in comparison.records.values())
    return [
        ("runs", progress(comparison)),
        ("base", str(study["base"])),
        (
            "tokens of a base run",
            charts.format_value(float(study["tokens"]) * comparison.study["costs"]["scale"]),
        ),
        ("seeds", ", ".join(map(str, study["seeds"]))),
        ("text", f"{charts.format_value(float(comparison.study['corpus']['tokens']))} tokens"),
        ("time of all runs", duration(seconds)),
    ]


def _reach(comparison: StudyComparison) -> float:
    ends = [abs(end) for row in comparison.rows for effect in row.effects.values() for end in effect.interval]
    return min(1.0, charts.nice_ticks(0, max([_LEAST_REACH, *ends]))[-1])


def _row_view(comparison: StudyComparison, row: Row, finetuning: str, reach: float) -> dict[str, Any]:
    effect = row.effects.get(finetuning)
    label, seeds, accuracy, difference, deviation, verdict = _effect_cells(row, finetuning)
    axes = comparison.study["study"]["axes"]
    view: dict[str, Any] = {
        "label": label,
        "seeds": seeds,
        "accuracy": accuracy,
        "difference": difference,
        "deviation": deviation,
        "verdict": verdict,
        "verdict_class": _VERDICTS.get(verdict, ""),
        "instead_of": axes[row.axis]["base"] if row.axis in axes else None,
        "strip": None,
        "tasks": [],
    }
    if effect is not None:
        described = f"{label}, {finetuning}: {difference} points, {verdict}"
        view["strip"] = charts.difference_strip(
            effect.difference, effect.interval, reach, description=described
        )
        view["by_seed"] = ", ".join(
            f"seed {seed}: {points_text(one)}" for seed, one in zip(effect.seeds, effect.by_seed, strict=True)
        )
        view["tasks"] = [
            (task.task, task.base, task.changed, points_text(task.difference),
             " to ".join(points_text(end) for end in task.interval))
            for task in effect.tasks
        ]  # fmt: skip
    return view


def _curves(comparison: StudyComparison, size: str) -> Iterator[dict[str, Any]]:
    """An axis' values beside the base: what the decoder loses at masked positions, and what detection finds."""
    base = [
        one
        for one in comparison.records.values()
        if one.values["size"] == size and one.values["axis"] is None
    ]
    if not base:
        return
    for axis in comparison.study["study"]["axes"]:
        of_axis = [
            one
            for one in comparison.records.values()
            if one.values["size"] == size
            and one.values["axis"] == axis
            and one.values["seed"] == base[0].values["seed"]
        ]
        for metric, title, unit in _CURVES:
            lines = []
            for number, record in enumerate([base[0], *of_axis][:_MOST_LINES]):
                curve = record.values["pretraining"]["curve"]
                # Losses of another objective are of other tokens.
                if (
                    "auxiliary_loss" in curve
                    and metric in curve
                    and any(v is not None for v in curve[metric])
                ):
                    name = "base" if record is base[0] else str(record.values["value"])
                    y = np.array([np.nan if value is None else value for value in curve[metric]])
                    lines.append(charts.Line(name, np.array(curve["tokens"], dtype=float), y, number))
            if len(lines) > 1:
                described = f"{axis}, {title} over tokens: " + "; ".join(
                    f"{line.name} ends at {charts.format_value(float(line.y[-1]), unit)}" for line in lines
                )
                yield {
                    "title": f"{axis}: {title}",
                    "lines": lines,
                    "svg": charts.line_chart(
                        lines,
                        x_label="tokens",
                        unit=unit,
                        from_zero=unit == "percent",
                        description=described,
                    ),
                }


def _trends(comparison: StudyComparison) -> list[dict[str, Any]]:
    """Differences at each size, where there are several."""
    sizes = list(dict.fromkeys(row.size for row in comparison.rows))
    if len(sizes) < 2:
        return []
    labels = list(dict.fromkeys(row.label for row in comparison.rows if row.axis is not None))
    found = {(row.size, row.label): row for row in comparison.rows}
    trends = []
    for finetuning in _finetunings(comparison):
        rows = []
        for label in labels:
            cells = []
            for size in sizes:
                row = found.get((size, label))
                effect = row.effects.get(finetuning) if row else None
                if effect is None:
                    cells.append("–")
                else:
                    low, high = (points_text(end) for end in effect.interval)
                    cells.append(f"{points_text(effect.difference)} ({low} to {high})")
            rows.append((label, cells))
        trends.append({"finetuning": finetuning, "sizes": sizes, "rows": rows})
    return trends
