"""``metro-t0 evaluate --lm-eval``, run as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_folders import write_lines
from small_models import WORDS, make_model, make_tokenizer


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "metro_t0.cli.main", "evaluate", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


def test_tasks_of_one_s_own_are_ranked_tabled_and_written(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    for part in (make_model(tokenizer), tokenizer):
        part.save_pretrained(tmp_path / "model")
    rows = [{"text": f"{word} it is", "label": number % 2} for number, word in enumerate(WORDS)]
    (tmp_path / "tasks").mkdir()
    write_lines(tmp_path / "rows.json", rows)
    (tmp_path / "tasks" / "sure.yaml").write_text(
        f"""
        task: sure
        dataset_path: json
        dataset_kwargs: {{data_files: {{test: {tmp_path / "rows.json"}}}}}
        test_split: test
        output_type: multiple_choice
        doc_to_text: "{{{{text}}}}. True?"
        doc_to_choice: ["true", "false"]
        doc_to_target: label
        metric_list: [{{metric: acc}}]
        """
    )
    done = command(
        tmp_path / "model", "--lm-eval", "sure", "--include-path", tmp_path / "tasks",
        "--limit", "10", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out" / "lm-eval.json").read_text())
    accuracy = written["results"]["sure"]["acc,none"]
    assert re.search(rf"sure +acc +10 +{accuracy:.4f}", done.stdout), done.stdout
    assert str(tmp_path / "out" / "lm-eval.json") in done.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --suite NAME or --lm-eval TASKS"),
        (["--suite", "a.yaml", "--lm-eval", "x"], "give either --suite NAME or --lm-eval TASKS"),
        (["--lm-eval", " , "], "names no task"),
    ],
)
def test_what_is_to_be_evaluated_must_be_clear(options: list[str], message: str, tmp_path: Path) -> None:
    done = command("model", "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr
    assert not (tmp_path / "out").exists()
