"""Which datasets a model was finetuned on, so that its scores on them are not taken for zero-shot ones.

    trained_on("runs/finetune")             # {("super_glue", "boolq"), ("imdb", None), ...}
    trained_on("gonglinyuan/metro_t0_base") # those of T0's mixture

Our models carry the card of the data that they were finetuned on (``data_card.json``); the published ones are known by
name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from metro_t0.prompts.published import published_file

Dataset = tuple[str, str | None]

_PUBLISHED_MODEL = re.compile(r"(?:.*/)?metro_t0(p{0,2})_(?:base|basepp|largepp)/?")


def trained_on(model: str | Path) -> frozenset[Dataset] | None:
    """The (dataset, subset) pairs that a model's finetuning mixture held; None when nothing says.

    Args:
        model: a model folder, a run directory, or a Hub name.

    Raises:
        ValueError: the model's card is broken.
    """
    folder = Path(model)
    for place in (folder, folder.parent):
        card = place / "data_card.json"
        # A folder that merely lies beside a run's card is not that run's model.
        if card.is_file() and (place == folder or folder.name == "model"):
            return _of_card(card)
    published = _PUBLISHED_MODEL.fullmatch(str(model))
    return _of_mixture("t0" + "+" * len(published[1])) if published else None


def _of_card(path: Path) -> frozenset[Dataset] | None:
    try:
        tasks: Any = json.loads(path.read_text(encoding="utf-8")).get("tasks")
        if tasks is None:  # the card of a corpus: a model that was not finetuned
            return None
        return frozenset((str(task["dataset"]), task["subset"]) for task in tasks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a data card that can be read: {error}") from error


def _of_mixture(name: str) -> frozenset[Dataset]:
    path = published_file(name)
    assert path is not None
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    pairs = {(task["dataset"], task.get("subset")) for task in content["tasks"]}
    return frozenset(pairs).union(*(_of_mixture(included) for included in content.get("include", [])))
