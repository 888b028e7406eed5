"""Output folders that appear whole or not at all::

with new_directory(Path("prepared")) as folder:
    (folder / "card.json").write_text("{}")     # folder is a temporary sibling of prepared
# now prepared/card.json exists; had anything been raised, neither folder would
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def check_vacant(out: Path) -> None:
    """Refuse an output folder that already holds something.

    Raises:
        ValueError: ``out`` is a file, or a folder that is not empty.
    """
    if out.is_dir():
        if any(out.iterdir()):
            raise ValueError(
                f"{out} already holds something; choose another output folder or remove it first"
            )
    elif out.exists() or out.is_symlink():
        raise ValueError(f"{out} is a file; choose another output folder")


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Give a temporary sibling of ``out`` to write into, renamed to ``out`` at the end, removed on any error.

    Parents of ``out`` that did not exist are made, and removed again on an error.

    Raises:
        ValueError: ``out`` already holds something, or its parent cannot be written to.
    """
    out = out.expanduser().absolute()
    check_vacant(out)
    made = [parent for parent in out.parents if not parent.exists()]
    partial = out.with_name(f".{out.name}.partial-{secrets.token_hex(4)}")
    try:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise ValueError(f"cannot write to {out.parent}: {error.strerror}") from error
        yield partial
        check_vacant(out)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in made:
            # Not there, or another program's by now: either way not ours to remove.
            with suppress(OSError):
                parent.rmdir()
        raise
