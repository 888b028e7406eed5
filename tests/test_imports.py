"""The house's one-way imports, read from the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import metro_t0

PACKAGE = Path(metro_t0.__file__).parent

# Each room may import itself and the rooms named here; whoever is not named may not be reached.
ALLOWED: dict[str, set[str]] = {
    "settings": set(),
    "config": {"settings"},
    "launcher": set(),
    "modeling": set(),
    "tokenization": set(),
    "objectives": {"config", "modeling"},
    "data": {"tokenization"},
    "prompts": {"tokenization", "data"},
    "analysis": {
        "config",
        "data",
        "evaluation",
        "interop",
        "modeling",
        "objectives",
        "prompts",
        "tokenization",
    },
    "training": {
        "analysis",
        "config",
        "data",
        "interop",
        "launcher",
        "modeling",
        "objectives",
        "prompts",
        "tokenization",
    },
    "evaluation": {"data", "interop", "launcher", "modeling", "prompts", "tokenization"},
    "interop": {"modeling", "tokenization"},
    "sharing": {"config", "data", "evaluation", "interop", "modeling", "tokenization", "training"},
    "serving": {"evaluation", "modeling", "tokenization"},
    "study": {
        "config",
        "settings",
        "launcher",
        "modeling",
        "objectives",
        "tokenization",
        "data",
        "prompts",
        "training",
        "evaluation",
        "analysis",
    },
    "demo": {"config", "modeling", "tokenization", "data", "prompts", "training", "evaluation"},
}
TRAVELLING = ["modeling", "tokenization/normalizer.py", "tokenization/tokenizer.py"]
TRAVELLING_LIBRARIES = {"torch", "transformers", "sentencepiece"}
# A classmethod of the contract that lives above its room: imported when called, never when loaded.
DEFERRED = {("modeling/pretraining.py", "metro_t0.interop.fairseq")}


def imported_names(path: Path) -> list[str]:
    """Absolute dotted names that a file imports anywhere in it, type-checking blocks included."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            names.append(".".join(filter(None, [base, node.module])))
    return names


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")
    allowed = {*ALLOWED, "cli"} if room in ("__init__", "cli") else {*ALLOWED[room], room}
    for name in imported_names(path):
        if name.startswith("metro_t0.") and (str(relative), name) not in DEFERRED:
            assert name.split(".")[1] in allowed, f"{relative} imports {name}"


def test_evaluation_does_not_know_the_loop_and_nothing_knows_the_command() -> None:
    for path in sources():
        room = path.relative_to(PACKAGE).parts[0]
        names = imported_names(path)
        if room == "evaluation":
            assert not any(name.startswith("metro_t0.training") for name in names), path
        if room != "cli":
            assert not any(name.startswith("metro_t0.cli") for name in names), path


def test_what_travels_with_a_checkpoint_needs_only_three_libraries() -> None:
    for entry in TRAVELLING:
        place = PACKAGE / entry
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            for name in imported_names(path):
                top = name.split(".")[0]
                if (str(path.relative_to(PACKAGE)), name) in DEFERRED or top in sys.stdlib_module_names:
                    continue
                own_room = name.startswith(f"metro_t0.{path.relative_to(PACKAGE).parts[0]}")
                assert top in TRAVELLING_LIBRARIES or own_room, f"{path} imports {name}"


def test_only_the_command_reads_arguments_and_writes_to_the_terminal() -> None:
    for path in sources():
        if path.relative_to(PACKAGE).parts[0] == "cli":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls), path
        assert "sys.argv" not in path.read_text(encoding="utf-8"), path


def test_importing_the_package_costs_no_torch() -> None:
    code = "import sys, metro_t0, metro_t0.cli.main; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_resolve() -> None:
    for name in metro_t0.__all__:
        assert getattr(metro_t0, name).__module__.startswith("metro_t0.")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = metro_t0.no_such_name


def test_no_file_grows_past_its_room() -> None:
    long = {str(path): lines for path in sources() if (lines := len(path.read_text().splitlines())) > 500}
    assert not long
