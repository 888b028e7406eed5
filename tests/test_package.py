"""A wheel builds, carries its data files, and works outside the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    [built] = out.glob("*.whl")
    return built


def test_wheel_carries_every_file_of_the_package(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src"
    wanted = {
        str(path.relative_to(package))
        for path in (package / "metro_t0").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= packed
    assert any(name.endswith("presets/tiny.yaml") for name in packed)
    assert any("demo/templates/" in name for name in packed)


def test_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), str(wheel)],
        check=True,
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import metro_t0, pathlib; "
        "assert pathlib.Path(metro_t0.__file__).is_relative_to(sys.argv[1]), metro_t0.__file__; "
        "from metro_t0.config import load_preset; load_preset('tiny'); "
        "from metro_t0 import MetroObjective, load_templates, rank"
    )
    subprocess.run([sys.executable, "-I", "-c", code, str(place)], check=True, cwd=tmp_path)


def test_constraints_pin_one_tested_set() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "\ntorch==2.13.0\n" in pins
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {line.split("==")[0].lower() for line in pins.splitlines() if "==" in line}
    extras = project["optional-dependencies"]
    included = [re.fullmatch(r"metro-t0\[(.+)\]", requirement) for requirement in extras["dev"]]
    tested = [found[1] for found in included if found]
    assert {"corpora", "trainer", "lora", "serve"} <= set(tested)
    for requirement in [
        *project["dependencies"],
        *extras["dev"],
        *(r for extra in tested for r in extras[extra]),
    ]:
        name = re.split("[<>;]", requirement)[0].strip().lower()
        assert name in names or name.startswith("metro-t0["), f"{name} is not pinned in constraints.txt"
