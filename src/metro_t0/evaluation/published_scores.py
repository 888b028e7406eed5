"""Scores that others have published, to set one's own beside: ``published_scores.yaml``, read and typed.

    for model in published_scores():
        model.name, model.scores["RTE"], model.average         # 'METRO-T0 BASE', 65.18, 49.44

Scores are in percent, as they were printed; the file's comments say what is odd about some of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import yaml

SHOWN_AT_FIRST = (
    "METRO-T0 BASE",
    "METRO-T0 BASE++",
    "METRO-T0 LARGE++",
    "T0 11B (Sanh)",
    "GPT-3 175B",
)


@dataclass(frozen=True)
class PublishedScores:
    """One model's row of a published table.

    Attributes:
        name: of the model, unique over all tables.
        parameters: how many, as printed, such as ``226M``.
        mixture: what it was finetuned on (``T0``, ``T0+``, ``T0++``), None if on no mixture.
        scores: accuracy in percent by task; None where the source was not at hand.
        average: the mean over the tasks as printed, in percent; None where it was not at hand.
        supervised: tasks that the table marks as part of the mixture.
        source: ``paper`` or ``model cards``.
        title: of the source.
        url: where the source is.
    """

    name: str
    parameters: str
    mixture: str | None
    scores: dict[str, float | None]
    average: float | None
    supervised: frozenset[str]
    source: str
    title: str
    url: str


def published_scores() -> list[PublishedScores]:
    """All rows, in the order of the file: the paper's table, then the model cards."""
    text = (
        resources.files("metro_t0.evaluation").joinpath("published_scores.yaml").read_text(encoding="utf-8")
    )
    content = yaml.safe_load(text)
    return [
        PublishedScores(
            name=model["name"],
            parameters=model["parameters"],
            mixture=model["mixture"],
            scores=dict(zip(content["columns"], model["scores"], strict=True)),
            average=model["average"],
            supervised=frozenset(model.get("supervised", ())),
            source=table["source"],
            title=table["title"],
            url=table["url"],
        )
        for table in content["tables"]
        for model in table["models"]
    ]


def find_published(names: Sequence[str]) -> list[PublishedScores]:
    """The rows of these names, in the order of the names.

    Raises:
        ValueError: there is no row of a name; the message says the nearest ones.
    """
    by_name = {model.name: model for model in published_scores()}
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=3, cutoff=0.4) or list(by_name)
            raise ValueError(f"no published scores of {name!r}; did you mean {', '.join(map(repr, near))}?")
    return [by_name[name] for name in names]
