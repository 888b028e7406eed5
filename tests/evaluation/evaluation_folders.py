"""Small run and evaluation folders, written by the tests in the layout that training and evaluation write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from metro_t0.evaluation.aggregate import score_overall, score_task, score_template
from metro_t0.evaluation.suites import overall_entry, task_entry, template_entry

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


def write_evaluation(path: Path) -> Path:
    """Results of three tasks: one above chance, one within noise, one below; hostile text in every free field."""
    rng = np.random.default_rng(1)
    path.mkdir(parents=True)
    tasks, scores, examples = [], [], []
    for name, rate, choices, number_of_templates in (
        ("Which library does this come from?", 0.46, ["numpy", "pandas", "torch", "json"], 5),
        ("Does this summary belong to this body?", 0.505, ["Yes", "No"], 4),
        (f"Hostile {HOSTILE}", 0.28, ["True", "False", "Neither"], 1),
    ):
        ease = rng.normal(0, 0.25, size=(240, 1))
        correct = (rng.random((240, number_of_templates)) < rate + ease * 0.3).astype(float)
        entries, template_scores = [], []
        for index, column in enumerate(correct.T):
            score = score_template(
                [0 if c else 1 for c in column], [0] * len(column), [choices] * len(column)
            )
            template_scores.append(score)
            entries.append(
                template_entry(
                    "demo", None, "validation", f"wording {index} {HOSTILE[:12]}", score, truncated=3
                )
            )
        task = score_task(template_scores, correct)
        scores.append(task)
        tasks.append(task_entry(name, "demo", None, "validation", 240, task, entries))
        for row in range(3):
            examples.append(
                {
                    "task": name,
                    "template": f"wording {row}",
                    "row": row,
                    "prompt": f"Return the elements chosen from x or y depending on condition. {HOSTILE}\n\n{name}",
                    "choices": [*choices[:-1], f"{choices[-1]} {HOSTILE[:30]}"],
                    "log_likelihoods": [-3.2 - 0.8 * index for index in range(len(choices))],
                    "prediction": 0,
                    "gold": row % 2,
                }
            )
    results = {
        "format_version": 1,
        "suite": f"demo suite {HOSTILE[:10]}",
        "model": "runs/finetune/model",
        "limit": None,
        "overall": overall_entry(score_overall(scores)),
        "tasks": tasks,
        "skipped": [{"task": "write", "template": f"open {HOSTILE}", "reason": "open-ended: no choices"}],
        "prompts": 2400,
        "truncated_prompts": 30,
        "environment": {"python": "3.11"},
        "seconds": 12.5,
    }
    (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    write_lines(path / "examples.jsonl", examples)
    return path
