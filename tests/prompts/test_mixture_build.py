"""Building in several processes and after interruptions; what the card tells; every mishap in one line."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from metro_t0.prompts.mixture import PromptedData, load_mixture

ROWS = 3000
UNIT = 500


@pytest.fixture
def mixture_file(
    tmp_path: Path, write_templates: Callable[..., Path], write_json_lines: Any, boat_rows: Any
) -> Path:
    """Tasks ``boats`` and ``ships``, each of 3000 rows under two templates, one of which draws."""
    folder = tmp_path / "in"
    write_templates(
        "in/t.yaml",
        question=("{{ text }} Is this good? ||| {{ answer_choices[label] }}", "no ||| yes"),
        draws=("{{ ['the', 'a', 'her'] | choice }} {{ label }} ||| {{ text }}", None),
    )
    tasks = []
    for name in ("boats", "ships"):
        write_json_lines(folder / f"{name}.jsonl", boat_rows(ROWS))
        tasks.append({"dataset": name, "train": f"{name}.jsonl", "templates": "t.yaml"})
    (folder / "mix.yaml").write_text(yaml.safe_dump({"tasks": tasks}), encoding="utf-8")
    return folder / "mix.yaml"


def _build(path: Path, tokenizer: Any, out: Path, **settings: Any) -> PromptedData:
    return load_mixture(path).build(tokenizer, out, **{"unit_examples": UNIT, **settings})


def _build_in_process(path: Path, tokenizer: Any, out: Path, processes: int) -> Any:
    process = multiprocessing.get_context("fork").Process(
        target=_build, args=(path, tokenizer, out), kwargs={"processes": processes}
    )
    process.start()
    return process


def _content(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("card.json", "card.md", "examples.jsonl")]


def _finished(out: Path) -> set[int]:
    """The Arrow files (their inodes) of the finished units of an interrupted build."""
    folders = out.with_name(f".{out.name}.work").glob("units/*/*-*")
    return {
        file.stat().st_ino
        for folder in folders
        if folder.suffix != ".part"
        for file in folder.glob("*.arrow")
    }


def _written(out: Path) -> set[int]:
    return {file.stat().st_ino for file in out.glob("*/*.arrow")}


def _wait(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_processes_units_and_interruptions_do_not_show(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any
) -> None:
    one = _build(mixture_file, small_tokenizer, tmp_path / "one", processes=1)
    assert len(one.train) == 4 * (ROWS - 30)
    four = _build(mixture_file, small_tokenizer, tmp_path / "four", processes=4)
    assert _content(four.path) == _content(one.path)
    large = _build(mixture_file, small_tokenizer, tmp_path / "large", unit_examples=1_000_000)
    assert large.card["checksums"] == one.card["checksums"]

    out = tmp_path / "killed"
    process = _build_in_process(mixture_file, small_tokenizer, out, processes=2)
    _wait(lambda: len(_finished(out)) >= 3)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not out.exists()
    kept = _finished(out)
    assert 3 <= len(kept) < 24
    again = _build(mixture_file, small_tokenizer, out, processes=2)
    assert _content(again.path) == _content(one.path)
    assert kept < _written(out)
    assert not out.with_name(".killed.work").exists()


def test_a_killed_worker_is_named_and_what_was_done_is_kept(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any, write_json_lines: Any, boat_rows: Any
) -> None:
    write_json_lines(mixture_file.parent / "ships.jsonl", boat_rows(30_000))
    out = tmp_path / "out"
    # Other tests of this process may have left helpers of their own.
    others = _workers_of(os.getpid())
    killer = multiprocessing.get_context("fork").Process(
        target=_kill_a_worker, args=(os.getpid(), others, out)
    )
    killer.start()
    message = (
        r"a worker process was killed at task 'ships' \(.*ships\.jsonl, rows \d+ to \d+\) or soon after it, .*"
        r"what is done is kept"
    )
    with pytest.raises(ValueError, match=message) as error:
        _build(mixture_file, small_tokenizer, out, processes=2)
    killer.join()
    assert "\n" not in str(error.value)
    kept = _finished(out)
    assert len(kept) > 12
    _build(mixture_file, small_tokenizer, out, processes=2)
    assert kept < _written(out)


def _kill_a_worker(builder: int, others: list[int], out: Path) -> None:
    _wait(lambda: len(_finished(out)) > 60)
    worker = next(pid for pid in _workers_of(builder) if pid not in (os.getpid(), *others))
    os.kill(worker, signal.SIGKILL)


def test_a_broken_row_is_named_and_after_its_mend_the_build_goes_on(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any, write_json_lines: Any, boat_rows: Any
) -> None:
    rows = boat_rows(12_000)
    write_json_lines(mixture_file.parent / "boats.jsonl", rows)
    write_json_lines(mixture_file.parent / "ships.jsonl", [*rows[:2000], {"text": "no label"}, *rows[2000:]])
    out = tmp_path / "out"
    message = r"ships\.jsonl, row 2001: template '\w+' of boats uses 'label', which the row does not have"
    with pytest.raises(ValueError, match=message) as error:
        _build(mixture_file, small_tokenizer, out, processes=2)
    assert "\n" not in str(error.value)
    assert not out.exists()
    kept = _finished(out)
    write_json_lines(mixture_file.parent / "ships.jsonl", rows)
    data = _build(mixture_file, small_tokenizer, out, processes=2)
    boats = data.train.filter(lambda row: row["task"] == 0)
    assert len(boats) == 2 * 11_880
    # The units of the file that was not touched are those of the first run; the other's are new.
    assert len(kept & _written(out)) >= 48
    assert data.card["tasks"][1]["rows"]["train"] == 11_880


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_out_of_range_is_named(
    tmp_path: Path,
    mixture_file: Path,
    small_tokenizer: Any,
    write_json_lines: Any,
    boat_rows: Any,
    label: int,
) -> None:
    rows = boat_rows(ROWS)
    rows[1234]["label"] = label
    write_json_lines(mixture_file.parent / "ships.jsonl", rows)
    message = (
        rf"ships\.jsonl, row 1235: template 'question' of boats cannot be rendered: it asks for answer choice {label} "
        "of 2"
    )
    with pytest.raises(ValueError, match=message) as error:
        _build(mixture_file, small_tokenizer, tmp_path / "out", processes=2)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_ends_early_is_named(tmp_path: Path, mixture_file: Path, small_tokenizer: Any) -> None:
    folder = mixture_file.parent
    packed = gzip.compress((folder / "ships.jsonl").read_bytes())
    (folder / "ships.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    mixture_file.write_text(mixture_file.read_text().replace("ships.jsonl", "ships.jsonl.gz"))
    with pytest.raises(ValueError, match=r"ships\.jsonl\.gz: the compressed file is damaged or ends early"):
        _build(mixture_file, small_tokenizer, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    (folder / "ships.jsonl.gz").write_bytes(packed)
    assert len(_build(mixture_file, small_tokenizer, tmp_path / "out").train) == 4 * (ROWS - 30)


@pytest.mark.parametrize("small_disk", [12], indirect=True)
def test_a_full_disk_is_named_and_with_room_the_build_goes_on(
    tmp_path: Path,
    mixture_file: Path,
    small_tokenizer: Any,
    small_disk: Path,
    write_json_lines: Any,
    boat_rows: Any,
) -> None:
    write_json_lines(mixture_file.parent / "boats.jsonl", boat_rows(30_000))
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 9_800_000)
    out = small_disk / "out"
    with pytest.raises(ValueError, match=r"cannot write .*No space left on device") as error:
        _build(mixture_file, small_tokenizer, out, processes=2)
    assert "\n" not in str(error.value)
    assert not out.exists()
    kept = _finished(out)
    filler.unlink()
    _build(mixture_file, small_tokenizer, out, processes=2)
    assert kept
    assert kept < _written(out)


def test_of_large_datasets_only_the_rows_of_the_epochs_are_rendered(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any
) -> None:
    content = yaml.safe_load(mixture_file.read_text())
    mixture_file.write_text(yaml.safe_dump({**content, "cap": 800, "validation_fraction": 0}))
    data = _build(mixture_file, small_tokenizer, tmp_path / "two", epochs=2, processes=2)
    # 400 rows a template and epoch, of four templates.
    assert len(data.train) == 2 * 4 * 400
    assert data.card["tasks"][0]["rows"]["train"] == ROWS
    assert data.card["tasks"][0]["rendered_rows"] == 800
    assert "rendered for 2 epoch(s)" in (data.path / "card.md").read_text()
    first, second = (data.epoch_indices(epoch, 0) for epoch in range(2))
    assert len(first) == len(second) == 1600
    assert not set(first.tolist()) & set(second.tolist())
    again = _build(mixture_file, small_tokenizer, tmp_path / "again", epochs=2, unit_examples=77)
    assert again.card["checksums"] == data.card["checksums"]
    # Each template of each task draws for itself, and none draws a row twice.
    assert data.card["templates"][0]["name"] == "draws"
    boats, ships = (
        {small_tokenizer.decode(row["labels"]) for row in data.train if row["template"] == number}
        for number in (0, 2)
    )
    assert len(boats) == len(ships) == 800
    assert boats != ships
    whole = _build(mixture_file, small_tokenizer, tmp_path / "all", epochs=8)
    assert len(whole.train) == 4 * ROWS
    with pytest.raises(ValueError, match="number of epochs must be at least 1"):
        _build(mixture_file, small_tokenizer, tmp_path / "none", epochs=0)


def test_long_examples_are_dropped_where_that_is_asked_for(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any
) -> None:
    limits = {"max_input_length": 14, "max_target_length": 12}
    whole = _build(mixture_file, small_tokenizer, tmp_path / "whole")
    data = _build(mixture_file, small_tokenizer, tmp_path / "dropped", drop_long=True, **limits)
    fits = (whole.lengths("train") <= [14, 12]).all(axis=1)
    assert 0 < fits.sum() < len(fits)
    kept = whole.train.select(np.flatnonzero(fits))
    assert data.train.to_dict() == kept.to_dict()
    assert data.card["totals"]["train"]["dropped"] == {"too long": int((~fits).sum())}
    assert data.card["totals"]["train"]["truncated_inputs"] == 0
    cut = _build(mixture_file, small_tokenizer, tmp_path / "cut", **limits)
    assert len(cut.train) == len(whole.train)
    assert cut.card["checksums"]["train"] != data.card["checksums"]["train"]


def test_the_card_tells_all(tmp_path: Path, mixture_file: Path, small_tokenizer: Any) -> None:
    data = _build(mixture_file, small_tokenizer, tmp_path / "out")
    card = data.card
    lengths, template = data.lengths("train"), np.asarray(data.train["template"])
    for number, entry in enumerate(card["templates"]):
        counts, of_template = entry["train"], lengths[template == number]
        assert counts["rows"] == counts["examples"] + sum(counts["dropped"].values()) == ROWS - 30
        assert [counts["input_tokens"], counts["target_tokens"]] == of_template.sum(axis=0).tolist()
        for column, name in enumerate(("input_histogram", "target_histogram")):
            for label, texts in counts[name].items():
                low, high = map(int, label.split("-"))
                assert texts == ((of_template[:, column] >= low) & (of_template[:, column] <= high)).sum()
            assert sum(counts[name].values()) == counts["examples"]
    source = mixture_file.parent / "ships.jsonl"
    facts = card["tasks"][1]["sources"]["train"]
    assert facts["bytes"] == source.stat().st_size
    assert facts["rows"] == ROWS
    summed = subprocess.run(["sha256sum", str(source)], capture_output=True, text=True, check=True).stdout
    assert facts["sha256"] == summed.split()[0]
    page = (data.path / "card.md").read_text(encoding="utf-8")
    assert f"{facts['sha256']}" in page and card["checksums"]["train"] in page
    assert "| question | 2,970 | 2,970 | 0 |" in page


def test_examples_to_read_show_every_template(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any
) -> None:
    source = mixture_file.parent / "boats.jsonl"
    # To some, what follows a text is a line's end; not in JSON lines.
    source.write_text(source.read_text().replace("boat 1 ", "boat 1 \\u2028 "))
    data = _build(mixture_file, small_tokenizer, tmp_path / "out")
    with (data.path / "examples.jsonl").open(encoding="utf-8") as lines:
        examples = [json.loads(line) for line in lines]
    assert any("\u2028" in example["input"] + example["target"] for example in examples)
    assert [example["task"] for example in examples] == ["boats"] * 10 + ["ships"] * 10
    assert [example["template"] for example in examples[:2]].count("question") == 1
    for example in examples:
        assert set(example) == {"task", "template", "row", "input", "target", "choices"}
        if example["template"] == "question":
            assert example["choices"] == ["no", "yes"]
            assert example["target"] == ["no", "yes"][(example["row"] - 1) % 2]
            assert example["input"].startswith(f"boat {example['row'] - 1} ")


def test_another_vocabulary_or_template_is_other_work(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any, write_templates: Callable[..., Path]
) -> None:
    data = _build(mixture_file, small_tokenizer, tmp_path / "one")
    write_templates(
        "in/t.yaml",
        question=("{{ text }} Is this true? ||| {{ answer_choices[label] }}", "no ||| yes"),
        draws=("{{ ['the', 'a', 'her'] | choice }} {{ label }} ||| {{ text }}", None),
    )
    other = _build(mixture_file, small_tokenizer, tmp_path / "two")
    assert other.card["templates_checksum"] != data.card["templates_checksum"]
    assert other.card["checksums"]["train"] != data.card["checksums"]["train"]
    assert other.card["vocabulary_checksum"] == data.card["vocabulary_checksum"]
    with pytest.raises(ValueError, match="number of processes must be at least 1"):
        _build(mixture_file, small_tokenizer, tmp_path / "three", processes=0)


def test_weights_and_caps_of_tasks_shape_epochs_and_what_is_rendered_for_them(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any
) -> None:
    content = yaml.safe_load(mixture_file.read_text())
    boats, ships = content["tasks"]
    tasks = [{**boats, "cap": 200, "weight": 2.5}, {**ships, "weight": 0.5}]
    mixture_file.write_text(yaml.safe_dump({"cap": 800, "validation_fraction": 0, "tasks": tasks}))
    data = _build(mixture_file, small_tokenizer, tmp_path / "out", epochs=3)
    caps = [(entry["cap"], entry["weight"]) for entry in data.card["templates"]]
    assert caps == [(100, 2.5), (100, 2.5), (400, 0.5), (400, 0.5)]
    assert [task["rendered_rows"] for task in data.card["tasks"]] == [750, 600]
    template = np.asarray(data.train["template"])
    seen: list[int] = []
    for epoch in range(3):
        indices = data.epoch_indices(epoch, 0)
        assert np.bincount(template[indices]).tolist() == [250, 250, 200, 200]
        seen += indices.tolist()
    assert len(set(seen)) == len(seen) == len(data.train)


def test_missing_datasets_are_in_the_card(
    tmp_path: Path, mixture_file: Path, small_tokenizer: Any, write_json_lines: Any, boat_rows: Any
) -> None:
    write_json_lines(tmp_path / "root" / "boats" / "default" / "train.jsonl", boat_rows(20))
    content = yaml.safe_load(mixture_file.read_text())
    tasks = [{key: value for key, value in task.items() if key != "train"} for task in content["tasks"]]
    mixture_file.write_text(yaml.safe_dump({"tasks": tasks}))
    mixture = load_mixture(mixture_file, data_root=tmp_path / "root", allow_missing=True)
    data = mixture.build(small_tokenizer, tmp_path / "out")
    assert data.card["missing"] == ["ships"]
    assert [task["name"] for task in data.card["tasks"]] == ["boats"]
    page = (data.path / "card.md").read_text(encoding="utf-8")
    assert "left out, since their rows were not there: ships" in page
