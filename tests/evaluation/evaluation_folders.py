"""Small run and evaluation folders, written by the tests in the layout that training and evaluation write."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from metro_t0.evaluation.aggregate import TaskScore, score_task, score_template
from metro_t0.evaluation.predictions import Prediction, TemplatePredictions, rescored, write_predictions
from metro_t0.evaluation.results import group_entries, overall_entry, task_entry, template_entry

HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7 * 7 }} & \"quoted\" 'too'"


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_run(path: Path, *, objective: str, steps: int = 600, log_every: int = 5) -> Path:
    """A run directory whose curves fall and rise as a real one's do."""
    rng = np.random.default_rng(0)
    path.mkdir(parents=True)
    config = {
        "format_version": 1,
        "kind": "finetune" if objective == "prompted" else "pretrain",
        "objective": {"kind": objective},
        "optimizer": {"learning_rate": 1e-3, "betas": [0.9, 0.98], "warmup_steps": None},
        "training": {"steps": steps, "precision": "fp32", "seed": 1},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (path / "environment.json").write_text(json.dumps({"python": "3.11", "torch": "2.13.0", "device": "cpu"}))
    (path / "data_card.json").write_text(json.dumps({"documents": 41_000, "tokens": 5_200_000}))
    records: list[dict[str, Any]] = []
    for step in range(log_every, steps + 1, log_every):
        done = step / steps
        noise = rng.normal(0, 0.15)
        record: dict[str, Any] = {"kind": "train", "step": step, "tokens": 4096 * step, "seconds": step * 0.6}
        record |= {"tokens_per_second": 6800 + 300 * rng.normal(), "learning_rate": 1e-3 * (1 - done)}
        record |= {"gradient_norm": 4 + 8 * np.exp(-6 * done) + abs(rng.normal())}
        if objective == "metro":
            parts = {
                "auxiliary_loss": 5.5 + 3.2 * np.exp(-5 * done) + noise,
                "lm_loss": 4.8 + 4 * np.exp(-4 * done) + noise,
                "rtd_loss": 0.36 + 0.3 * np.exp(-7 * done) + noise / 40,
                "auxiliary_accuracy": 0.18 * (1 - np.exp(-3 * done)) + noise / 50,
                "lm_accuracy_replaced": 0.16 * (1 - np.exp(-3 * done)),
                "lm_accuracy_kept": 0.72 * (1 - np.exp(-4 * done)),
                "rtd_recall": 0.35 * done,
                "rtd_specificity": 0.99 - 0.04 * done,
                "replace_ratio": 0.149 - 0.03 * done,
            }
            parts["loss"] = parts["auxiliary_loss"] + parts["lm_loss"] + 50 * parts["rtd_loss"]
        else:
            parts = {
                "loss": 0.8 + 4 * np.exp(-5 * done) + noise / 3,
                "lm_accuracy": 0.8 * (1 - np.exp(-4 * done)),
            }
            parts["lm_loss"] = parts["loss"]
        records.append(record | parts)
        if step % (10 * log_every) == 0:
            records.append(
                {"kind": "validation", "step": step, "tokens": 4096 * step, "seconds": step * 0.6}
                | {name: value * (1.03 if "loss" in name else 0.97) for name, value in parts.items()}
            )
    write_lines(path / "metrics.jsonl", records)
    return path


@dataclass(frozen=True)
class PlannedTask:
    """A task whose rows are made up: ``rate`` is about the share that a model of skill 0 answers rightly."""

    name: str
    rate: float
    choices: list[str]
    templates: int = 1
    rows: int = 120
    group: str | None = None
    supervised: bool = False
    expected_rows: int | None = None
    choices_vary: bool = False


DEMO_TASKS = (
    PlannedTask(
        "Which library does this come from?",
        0.46,
        ["numpy", "pandas", "torch", "json"],
        5,
        240,
        supervised=True,
    ),
    PlannedTask("Does this summary belong to this body?", 0.505, ["Yes", "No"], 4, 240, expected_rows=1000),
    PlannedTask(f"Hostile {HOSTILE}", 0.28, ["True", "False", f"Neither {HOSTILE[:30]}"], 1, 240),
)
T0_TASKS = (
    PlannedTask("RTE", 0.62, ["yes", "no"], 10, 277),
    PlannedTask("CB", 0.5, ["Yes", "No", "Maybe"], 15, 56),
    *(PlannedTask(f"ANLI R{i}", 0.34, ["Yes", "No", "Maybe"], 15, 100) for i in (1, 2, 3)),
    PlannedTask("WSC", 0.58, ["No", "Yes"], 10, 104, supervised=True),
    PlannedTask("Winogrande", 0.51, ["he", "she"], 5, 120, choices_vary=True),
    PlannedTask("COPA", 0.7, ["it rained", "it shone"], 8, 100, choices_vary=True),
    PlannedTask("StoryCloze", 0.8, ["first", "second"], 5, 100, choices_vary=True),
    PlannedTask("HellaSwag", 0.27, ["a", "b", "c", "d"], 4, 200, expected_rows=10042, choices_vary=True),
    PlannedTask("WiC", 0.51, ["No", "Yes"], 10, 120),
)
MMLU_TASKS = tuple(
    PlannedTask(name, 0.22 + 0.02 * place, ["A", "B", "C", "D"], 1, 20 + 3 * place, group=group)
    for place, (name, group) in enumerate(
        [
            ("abstract_algebra", "STEM"),
            ("anatomy", "STEM"),
            ("astronomy", "STEM"),
            ("world_religions", "humanities"),
            ("philosophy", "humanities"),
            ("econometrics", "social sciences"),
            ("sociology", "social sciences"),
            ("marketing", "other"),
            ("virology", "other"),
        ]
    )
)


def write_evaluation(
    path: Path,
    tasks: Sequence[PlannedTask] = DEMO_TASKS,
    *,
    suite: str = f"demo suite {HOSTILE[:10]}",
    skill: float = 0.0,
    seed: int = 1,
    missing: Sequence[str] = (),
    failing: Sequence[str] = (),
    **overrides: Any,
) -> Path:
    """An evaluation's folder: results.json and predictions/. Equal tasks have equal rows, whatever skill and seed."""
    entries, scores, prompts = [], [], 0
    for plan in tasks:
        if plan.name not in (*missing, *failing):
            score, entry = _write_task(path / "predictions", plan, skill, seed)
            scores.append(score)
            entries.append(entry)
            prompts += plan.rows * plan.templates
    results = {
        "format_version": 2,
        "suite": suite,
        "model": "runs/finetune/model",
        "limit": None,
        "max_input_length": 512,
        "seed": seed,
        "shots": 0,
        "split": None,
        "precision": {"dtype": "bfloat16", "sample": 400, "changed": 3},
        "scoring": ["official", "length-normalised"],
        "checksums": {"model": f"{seed:064x}", "templates": "b" * 64, "data": "c" * 64},
        "overall": overall_entry(scores, entries, expected_tasks=len(tasks)),
        "groups": group_entries(scores, entries),
        "tasks": entries,
        "missing": [{"task": name, "reason": f"no data of {name} {HOSTILE[:20]}"} for name in missing],
        "failures": [{"task": name, "reason": "the answer is not among the choices"} for name in failing],
        "skipped": [{"task": "write", "template": f"open {HOSTILE}", "reason": "open-ended: no choices"}],
        "generated": [
            {
                "task": "summarise",
                "dataset": "demo",
                "subset": None,
                "split": "validation",
                "template": f"say it short {HOSTILE[:12]}",
                "examples": 50,
                "exact_match": 0.04,
                "f1": 0.312,
                "rouge_l": 0.281,
            }
        ],
        "prompts": prompts,
        "truncated_prompts": 30,
        "seconds": 12.5,
        "examples_per_second": prompts / 12.5,
        "written": "2026-11-25T09:00:00+00:00",
        "environment": {"metro_t0": "0.2", "python": "3.11"},
    } | overrides
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return path


def _write_task(folder: Path, plan: PlannedTask, skill: float, seed: int) -> tuple[TaskScore, dict[str, Any]]:
    identity = zlib.crc32(plan.name.encode())
    rows = np.random.default_rng(identity)
    golds = rows.integers(len(plan.choices), size=plan.rows)
    ease = rows.normal(0, 0.15, size=plan.rows)
    model = np.random.default_rng([identity, seed])
    correct = np.zeros((plan.rows, plan.templates))
    template_scores, entries = [], []
    for index in range(plan.templates):
        name = f"wording {index} {HOSTILE[:12]}"
        right = model.random(plan.rows) < plan.rate + skill + ease + model.normal(0, 0.03)
        items = [
            _make_prediction(plan, index, row, int(golds[row]), bool(right[row]), model)
            for row in range(plan.rows)
        ]
        write_predictions(folder, TemplatePredictions(plan.name, name, items))
        predictions, gold_list = [item.prediction for item in items], [item.gold for item in items]
        score = score_template(predictions, gold_list, [item.choices for item in items])
        normalised = float(np.mean([rescored(item, "length-normalised") == item.gold for item in items]))
        others = {"length-normalised": normalised}
        entries.append(
            template_entry("demo", None, "validation", name, score, truncated=3, other_scores=others)
        )
        template_scores.append(score)
        correct[:, index] = np.equal(predictions, gold_list)
    task = score_task(template_scores, correct)
    entry = task_entry(
        plan.name,
        "demo",
        None,
        "validation",
        plan.rows,
        task,
        entries,
        group=plan.group,
        supervised=plan.supervised,
        expected_rows=plan.expected_rows,
        seconds=1.0,
    )
    return task, entry


def _make_prediction(
    plan: PlannedTask, template: int, row: int, gold: int, right: bool, rng: np.random.Generator
) -> Prediction:
    choices = [f"{choice} {row}" for choice in plan.choices] if plan.choices_vary else list(plan.choices)
    chosen = gold if right else int((gold + 1 + rng.integers(len(choices) - 1)) % len(choices))
    scores = -3.0 - rng.exponential(1.5, size=len(choices))
    scores[chosen] = -2.5 - 0.5 * rng.random()
    return Prediction(
        row=row,
        prompt=f"Wording {template} of question {row}. {HOSTILE}\n\nWhich is it: {plan.name}?",
        choices=choices,
        log_likelihoods=[float(score) for score in scores],
        lengths=[1 + len(choice.split()) for choice in choices],
        prediction=chosen,
        gold=gold,
        truncated=row % 40 == 0,
    )
