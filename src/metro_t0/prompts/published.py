"""Finds the published mixtures, which are data files of this package, and promptsource's templates.

    published_file("t0")        # .../prompts/mixtures/t0.yaml; None for a name that is not published
    find_templates()            # METRO_T0_TEMPLATES, an installed promptsource, or one unpacked here

``t0``, ``t0+`` and ``t0++`` are files in the format of ``mixture.py``: for each dataset what kind of task it is, its
train size, where the Hub keeps it and who says so, its licence and who says so.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

PUBLISHED = ("t0", "t0+", "t0++")
"""Names of the published mixtures, each of which holds the one before it."""

VARIABLE = "METRO_T0_TEMPLATES"

_ARCHIVE = "promptsource-0.1.0"
_BRING = (
    "pip download promptsource==0.1.0 --no-deps --no-binary :all: --ignore-requires-python "
    f"&& tar xf {_ARCHIVE}.tar.gz"
)


def published_file(name: str) -> Path | None:
    """The file of a published mixture, or None when there is none of that name."""
    return Path(__file__).with_name("mixtures") / f"{name}.yaml" if name in PUBLISHED else None


def find_templates(given: Path | None = None) -> Path:
    """The templates folder that is given, else the first there is of the other places (this module's first lines).

    Raises:
        ValueError: there is none; one line says how to bring the published ones.
    """
    if given is not None:
        return templates_folder(given)
    if named := os.environ.get(VARIABLE):
        return templates_folder(Path(named).expanduser())
    # Finding its place does not import it, which this Python could not.
    spec = importlib.util.find_spec("promptsource")
    installed = list(spec.submodule_search_locations or ()) if spec else []
    for folder in (*(Path(place) / "templates" for place in installed), Path(_ARCHIVE, *_INSIDE)):
        if folder.is_dir():
            return folder
    raise ValueError(
        f"no templates here: '{_BRING}' brings the published ones into this folder, where they are found; "
        f"others are named with --templates DIR or {VARIABLE}"
    )


_INSIDE = ("promptsource", "templates")


def templates_folder(given: Path) -> Path:
    """The folder of templates inside an unpacked promptsource distribution; anything else stays what it is."""
    inside = given.joinpath(*_INSIDE)
    return inside if inside.is_dir() else given
