"""Analyses as files for people and programs: ``analysis.json``, one page, and its figures.

    write_analysis(analyze_all(["runs/metro", "runs/t5"], corpus=Path("prepared")), Path("analysis"))

The page looks like the report's and loads nothing from outside.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metro_t0 import __version__
from metro_t0.analysis import figures
from metro_t0.analysis.analyze import FORMAT_VERSION, Record
from metro_t0.analysis.parameters import KINDS
from metro_t0.evaluation.records import write_text
from metro_t0.evaluation.report.charts import format_value
from metro_t0.evaluation.report.page import page_environment
from metro_t0.evaluation.report.run_view import flatten

MOST_MODELS = 8
_COSTLIEST = 12
# A cell is as dark as can be where its parameters hold so many times as much as their number would give them.
_DARKEST = 32.0
_LOSSES = {
    "prompts": "the cross entropy of the prompts' right answers",
    "span-corruption": "span corruption on the text, as T5 is pretrained",
    "metro": "METRO's own pretraining loss on the text",
}


def write_analysis(records: Sequence[Record], out: Path) -> None:
    """Write ``analysis.json``, ``analysis.html`` and ``figures/*.svg``; older ones are replaced.

    Args:
        records: of ``analyze``, one a model, in the order to be shown; at most eight.
        out: folder, made where it is not there.

    Raises:
        ValueError: there are more models than a page can tell apart.
    """
    if len(records) > MOST_MODELS:
        raise ValueError(f"{len(records)} models do not go on one page: give at most {MOST_MODELS}")
    text = json.dumps({"format_version": FORMAT_VERSION, "models": list(records)}, ensure_ascii=False) + "\n"
    (out / "figures").mkdir(parents=True, exist_ok=True)
    view = _view(records)
    for figure in view["figures"]:
        write_text(out / "figures" / f"{figure.name}.svg", figures.standalone(figure))
    page = page_environment("analysis/templates").get_template("analysis.html.jinja").render(**view)
    write_text(out / "analysis.html", page)
    write_text(out / "analysis.json", text)


def _view(records: Sequence[Record]) -> dict[str, Any]:
    """What the page's template is filled with."""
    sources = [source for source in ("text", "prompts") if source in records[0]["activation"]]
    activation = [(source, figures.activation_figures(records, source)) for source in sources]
    masses = [figures.lorenz_figure(records), *figures.mass_figures(records)]
    models = [_model_view(record, number) for number, record in enumerate(records, start=1)]
    losses = {record["model"]["name"]: _LOSSES[record["sensitivity"]["loss"]] for record in records}
    return {
        "title": "What is inside",
        "headline": _headline(records, sources[0]),
        "activation": activation,
        "masses": masses,
        "models": models,
        "losses": losses,
        "figures": [
            *(figure for _, of_source in activation for figure in of_source),
            *masses,
            *(figure for model in models for figure in model["zeroing"]),
        ],
        "version": __version__,
        "written": datetime.datetime.now().astimezone().strftime("%-d %B %Y, %H:%M"),
    }


def _headline(records: Sequence[Record], source: str) -> str:
    shares = [
        f"{format_value(mean_share(record, source), 'percent')} {'of units fire ' if not place else ''}in "
        f"{record['model']['name']}"
        for place, record in enumerate(records)
    ]
    listed = shares[0] if len(shares) == 1 else f"{', '.join(shares[:-1])} and {shares[-1]}"
    return f"At a token of {'text' if source == 'text' else 'a prompt'}, {listed}"


def mean_share(record: Record, source: str, stack: str | None = None) -> float:
    """Share of firing units averaged over layers, 0-1, of one stack or of both."""
    shares = [layer["share"] for layer in record["activation"][source] if stack in (None, layer["stack"])]
    return sum(shares) / len(shares)


def _model_view(record: Record, number: int) -> dict[str, Any]:
    model, sensitivity = record["model"], record["sensitivity"]
    overall = sensitivity["overall"]
    costliest = sorted(sensitivity["zeroed"], key=lambda entry: -entry["lost"])[:_COSTLIEST]
    return {
        "name": model["name"],
        "facts": [
            ("parameters", f"{model['parameters']:,}"),
            ("layers", f"{model['encoder_layers']} + {model['decoder_layers']}"),
            ("trained by", model["objective"] or "not said"),
            ("mean loss", format_value(sensitivity["mean_loss"])),
            ("sensitivity: Gini", f"{overall['gini']:.3f}"),
            ("hold half of it", format_value(overall["share_for_half"], "percent")),
            ("the top 1 % hold", format_value(overall["held_by_top"]["0.01"], "percent")),
        ],
        "notes": [entry["note"] for entry in record["inputs"].values() if entry["note"]],
        "layers": [
            {**layer, "source": source} for source, layers in record["activation"].items() for layer in layers
        ],
        "strips": _strips(record),
        "zeroing": figures.zeroing_figures(record, number),
        "costliest": [{**entry, "name": figures.group_name(entry)} for entry in costliest],
        "settings": flatten({"inputs": record["inputs"], "settings": record["settings"]}),
    }


def _strips(record: Record) -> list[dict[str, Any]]:
    """A table a stack, kinds down and layers across; what belongs to no layer comes first, in a table of its own."""
    overall = record["sensitivity"]["overall"]
    even = overall["mass"] / overall["parameters"]
    groups = record["sensitivity"]["groups"]
    strips = []
    for stack in ("encoder", "decoder", "auxiliary"):
        of_stack = [group for group in groups if group["stack"] == stack and group["layer"] is not None]
        layers = sorted({group["layer"] for group in of_stack})
        found = {(group["kind"], group["layer"]): group for group in of_stack}
        kinds = [kind for kind in KINDS if any(group["kind"] == kind for group in of_stack)]
        if kinds:
            strips.append(
                {
                    "name": stack.capitalize(),
                    "columns": [f"layer {layer + 1}" for layer in layers],
                    "rows": [
                        (kind, [_cell(found.get((kind, layer)), even, overall["mass"]) for layer in layers])
                        for kind in kinds
                    ],
                }
            )
    outside = [group for group in groups if group["layer"] is None]
    strips.append(
        {
            "name": "In no layer",
            "columns": ["all"],
            "rows": [(figures.group_name(group), [_cell(group, even, overall["mass"])]) for group in outside],
        }
    )
    return strips


def _cell(group: Record | None, even: float, mass: float) -> dict[str, Any] | None:
    """How many times as much of the mass as its number of parameters would give it, and how dark that is."""
    if group is None:
        return None
    ratio = group["mass"] / (group["parameters"] * even) if even else 0.0
    strength = abs(math.log(ratio)) / math.log(_DARKEST) if ratio else 1.0
    return {
        "ratio": "< 0.01×" if ratio < 0.01 else f"{ratio:.2g}×" if ratio < 100 else f"{ratio:.0f}×",
        "above": ratio >= 1.0,
        "strength": min(100.0, 100.0 * strength),
        "title": f"{format_value(group['mass'] / mass if mass else 0.0, 'percent')} of all sensitivity in "
        f"{group['parameters']:,} parameters; Gini {group['gini']:.3f}",
    }
