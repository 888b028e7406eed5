"""The results of an evaluation as a Markdown table, to paste where people talk.

    text = results_markdown(json.loads((out / "results.json").read_text()))

It says what the page's first table says: over how many rows the headline is, what is missing, what is supervised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from metro_t0.evaluation.records import Record
from metro_t0.evaluation.report.evaluation_view import absent_rows, count_text, in_suite_order, rows_text


def results_markdown(results: Record) -> str:
    """The whole text, from the content of ``results.json``: headline, table, what was left out, generated scores."""
    scorings = [name for name in results.get("scoring", []) if name != "official"]
    tasks = [{"name": task["task"], "absent": None, **task} for task in results["tasks"]]
    rows = in_suite_order(tasks + absent_rows(results))
    heads = [
        "task",
        "accuracy",
        "95 % interval",
        "chance",
        *scorings,
        "shortest chosen",
        "rows",
        "templates",
        "against chance",
    ]
    cells = [_row(row, scorings) for row in rows]
    if results.get("overall") and len(rows) > 1:
        cells.append(_overall_row(results, scorings))
    parts = [f"# {_headline(results)}", _about(results)]
    if cells:
        parts.append(_table(heads, cells, left={0, len(heads) - 1}))
    if any(task.get("shortest") for task in tasks):
        parts.append(
            "*shortest chosen*: how often the answer of the fewest tokens was chosen where answers differ in length, "
            "and in parentheses how often a uniform choice would."
        )
    if any(task.get("supervised") for task in tasks):
        parts.append("*supervised*: the model was finetuned on this dataset's training rows.")
    if results.get("generated"):
        parts += ["## Generated answers", _generated(results["generated"])]
    if results.get("skipped"):
        items = (
            f"- {_text(s['task'])}, {_text(s['template'])}: {_text(s['reason'])}" for s in results["skipped"]
        )
        parts += ["## Not scored", "\n".join(items)]
    return "\n\n".join(parts) + "\n"


def _headline(results: Record) -> str:
    suite = _text(str(results.get("suite", "evaluation")))
    overall = results.get("overall")
    if not overall:
        return f"{suite}: no task could be scored"
    return (
        f"{suite}: {_percent(overall['mean'])} % over {count_text(results)} "
        f"(95 % interval {_interval(overall)}; chance {_percent(overall['chance'])} %)"
    )


def _about(results: Record) -> str:
    """What was measured, and how: a line."""
    limit = f", the first {results['limit']:,} rows of each task" if results.get("limit") else ""
    text = f"Model {_text(str(results.get('model', '')))}, {results.get('prompts', 0):,} prompts{limit}. Accuracy in %."
    if results.get("truncated_prompts"):
        text += f" {results['truncated_prompts']:,} prompts were longer than the model reads and were cut."
    precision = results.get("precision") or {}
    if precision.get("sample"):
        text += (
            f" In {precision['dtype']}: {precision['changed']:,} of {precision['sample']:,} predictions differ from "
            "float32."
        )
    micro = (results.get("overall") or {}).get("micro")
    if micro is not None and any(task.get("group") for task in results["tasks"]):
        text += f" Every question counting once: {_percent(micro)} %."
    return text


def _row(row: dict[str, Any], scorings: Sequence[str]) -> list[str]:
    name = _text(row["name"])
    if row["absent"]:
        return [
            name,
            "–",
            "–",
            "–",
            *["–"] * len(scorings),
            "–",
            "–",
            "–",
            f"{row['absent']}: {_text(row['reason'])}",
        ]
    others = row.get("other_scores") or {}
    return [
        f"{name} *(supervised)*" if row.get("supervised") else name,
        _percent(row["mean"]),
        _interval(row),
        _percent(row["chance"]),
        *(_percent(others.get(scoring)) for scoring in scorings),
        _shortest(row.get("shortest")),
        rows_text(row).removesuffix(" rows").removesuffix(" row"),
        str(len(row["templates"])),
        row["verdict"],
    ]


def _overall_row(results: Record, scorings: Sequence[str]) -> list[str]:
    overall = results["overall"]
    others = overall.get("other_scores") or {}
    scores = [overall["mean"], None, overall["chance"], *(others.get(scoring) for scoring in scorings)]
    values = [_percent(score) for score in scores]
    values[1] = _interval(overall)
    name = f"mean over {count_text(results)}"
    return [*(f"**{value}**" for value in [name, *values]), "", "", "", overall["verdict"]]


def _generated(entries: Sequence[Record]) -> str:
    heads = ["task", "template", "rows", "exact match", "F1", "ROUGE-L"]
    cells = [
        [
            _text(entry["task"]),
            _text(entry["template"]),
            f"{entry['examples']:,}",
            *(_percent(entry[name]) for name in ("exact_match", "f1", "rouge_l")),
        ]
        for entry in entries
    ]
    return _table(heads, cells, left={0, 1})


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: set[int]) -> str:
    rule = ["---" if place in left else "---:" for place in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))


def _shortest(entry: Record | None) -> str:
    return f"{_percent(entry['chosen'])} ({_percent(entry['even'])})" if entry else "–"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _interval(score: Record) -> str:
    low, high = score["interval"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _text(text: str) -> str:
    """Text from outside on one line, its marks taken for what they are."""
    line = " ".join(text.split())
    for mark in "\\`*_[]|":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
