"""What is copied beside a model: whole, flat, and without anything that transformers would ask to be installed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports, get_relative_imports

from metro_t0.sharing.remote_code import (
    MODEL_CLASSES,
    PACKAGE,
    TOKENIZER_CLASSES,
    flattened,
    write_remote_code,
)

LIBRARIES = {"torch", "transformers", "sentencepiece"}


def test_files_need_each_other_and_three_libraries(tmp_path: Path) -> None:
    names = write_remote_code(tmp_path)
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        assert set(get_imports(path)) <= LIBRARIES | sys.stdlib_module_names
        assert {f"{name}.py" for name in get_relative_imports(path)} <= set(names)
    for place in (*MODEL_CLASSES.values(), str(TOKENIZER_CLASSES["AutoTokenizer"][0])):
        module, name = place.split(".")
        tree = ast.parse((tmp_path / f"{module}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_what_only_pretraining_needs_stays_at_home(tmp_path: Path) -> None:
    assert {"pretraining.py", "auxiliary.py", "heads.py"}.isdisjoint(write_remote_code(tmp_path))


def test_imports_become_flat() -> None:
    source = (
        "from __future__ import annotations\n"
        "import torch\n"
        "from metro_t0.tokenization.normalizer import (\n    make_normalizer,\n    STRAIGHT as straight,\n)\n"
        "from .layers import Block\n"
        "from ..tokenization.model_file import read_model\n"
        "\n"
        "def late():\n"
        "    from metro_t0.interop.fairseq import load\n"
        "    from metro_t0.modeling.heads import detection_head\n"
        "    return load, detection_head\n"
    )
    text, needed = flattened(source, Path("modeling/made_up.py"))
    assert text == (
        "from __future__ import annotations\n"
        "import torch\n"
        "from .normalizer import make_normalizer, STRAIGHT as straight\n"
        "from .layers import Block\n"
        "from .model_file import read_model\n"
        "\n"
        "def late():\n"
        "    try:\n"
        "        from metro_t0.interop.fairseq import load\n"
        "    except ImportError as error:\n"
        '        raise ImportError("this needs metro-t0: pip install metro-t0") from error\n'
        "    from .heads import detection_head\n"
        "    return load, detection_head\n"
    )
    assert sorted(needed) == [
        "modeling/heads.py",
        "modeling/layers.py",
        "tokenization/model_file.py",
        "tokenization/normalizer.py",
    ]
    ast.parse(text)


@pytest.mark.parametrize("path", sorted((PACKAGE / "modeling").glob("*.py")), ids=lambda path: path.name)
def test_what_is_flat_already_stays_as_it_is(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    text, needed = flattened(source, path.relative_to(PACKAGE))
    assert all((PACKAGE / name).is_file() for name in needed)
    if "metro_t0." not in source.partition('"""')[2].partition('"""')[2]:
        assert text == source


def test_a_file_that_cannot_travel_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"training\.loop, which does not travel"):
        flattened("from metro_t0.training.loop import train\n", Path("modeling/made_up.py"))
