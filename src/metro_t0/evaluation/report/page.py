"""One self-contained HTML page that shows what runs did and what evaluations found.

    write_report([Path("runs/pretrain"), Path("runs/finetune")], Path("report.html"), evaluation=Path("results"))
    write_report([], Path("comparison.html"), evaluation=[Path("results/a"), Path("results/b")])

The page loads nothing from outside and works on a phone, on paper, and in light and dark. Its one script sorts tables
and leafs through predictions; the page's own policy lets no other run. Whatever a file holds (prompts come from
strangers) is escaped by the template engine, or travels as data and is set as text.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from metro_t0 import __version__
from metro_t0.evaluation.compare import ComparedEvaluations, compare_all
from metro_t0.evaluation.published_scores import SHOWN_AT_FIRST
from metro_t0.evaluation.records import EvaluationRecord, read_evaluation, read_run, write_text
from metro_t0.evaluation.report import charts
from metro_t0.evaluation.report.comparison_view import comparison_view, points_text
from metro_t0.evaluation.report.evaluation_view import evaluation_view
from metro_t0.evaluation.report.prediction_sample import PredictionSample
from metro_t0.evaluation.report.published_view import published_view
from metro_t0.evaluation.report.run_view import duration, run_view

_PREDICTION_BYTES = 3_000_000


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    evaluation: Path | Sequence[Path] | None = None,
    title: str = "METRO-T0 report",
    published: Sequence[str] = SHOWN_AT_FIRST,
    compared: ComparedEvaluations | None = None,
) -> Path:
    """Write the page.

    Args:
        runs: run directories, in the order they are to be shown; may be empty if there is an evaluation.
        out: the HTML file; an older one is replaced once the new one is whole.
        evaluation: directory with ``results.json`` and ``predictions/``, or several.
        title: the page's name.
        published: names of the published rows that stand beside one's own at first (T0 Eval only).
        compared: the evaluations side by side, where :func:`compare_all` was called already.

    Returns:
        ``out``.

    Raises:
        ValueError: there is nothing to show, a file is missing or broken (named with its line), no published row has
            such a name, or evaluations are of different rows.
    """
    folders = [] if evaluation is None else [evaluation] if isinstance(evaluation, Path) else list(evaluation)
    if not runs and not folders:
        raise ValueError("nothing to report: give at least one run directory or an evaluation")
    run_records = [read_run(Path(run)) for run in runs]
    records = [read_evaluation(Path(folder)) for folder in folders]
    labels = evaluation_labels(records)
    if compared is None and len(records) > 1:
        compared = compare_all(records, labels)
    sample = PredictionSample(budget_bytes=_PREDICTION_BYTES)
    evaluations = [evaluation_view(r, label, sample) for r, label in zip(records, labels, strict=True)]
    script = (
        resources.files("metro_t0.evaluation.report")
        .joinpath("templates", "page.js")
        .read_text(encoding="utf-8")
    )
    page = (
        page_environment()
        .get_template("report.html.jinja")
        .render(
            title=title,
            runs=[run_view(record) for record in run_records],
            evaluations=evaluations,
            published=published_view(records, labels, published),
            comparison=comparison_view(compared) if compared else None,
            sample=sample,
            # Escaped as the sample's own rule says; the template engine's escapes would not be JSON.
            sample_json=Markup(sample.json_text()),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=__version__,
            written=datetime.datetime.now().astimezone().strftime("%-d %B %Y, %H:%M"),
        )
    )
    write_text(Path(out), page)
    return Path(out)


def evaluation_labels(records: Sequence[EvaluationRecord]) -> list[str]:
    """What to call evaluations: one by its model; several by as much of their folders' ends as tells them apart."""
    if len(records) == 1:
        return [str(records[0].results.get("model") or records[0].path.resolve().name)]
    return distinct_names([record.path for record in records])


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """As much of the paths' ends as tells them apart, the same number of parts of each."""
    parts = [path.resolve().parts for path in paths]
    longest = max(map(len, parts), default=1)
    for length in range(1, longest + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{'/'.join(part[-1:])} ({place})" for place, part in enumerate(parts, start=1)]


def page_environment(*folders: str) -> jinja2.Environment:
    """The template engine of pages that look alike: this report's templates and filters.

    Args:
        folders: of the package, with another page's own templates.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("metro_t0", folder) for folder in (*folders, "evaluation/report/templates")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = charts.format_value
    environment.filters["interval"] = _interval_text
    environment.filters["percent"] = _percent_text
    environment.filters["points"] = points_text
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["duration"] = duration
    return environment


def _percent_text(share: float | None) -> str:
    return "–" if share is None else charts.format_value(share, "percent")


def _interval_text(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * low:.1f} to {charts.format_value(high, 'percent')}"
