"""The command in this process.

code = command("rank", model, file)
"""

from __future__ import annotations

import sys
from pathlib import Path

from metro_t0.cli.main import main


def command(*arguments: str | Path) -> int:
    """Run the command in this process; its exit code."""
    before = sys.argv
    sys.argv = ["metro-t0", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0
