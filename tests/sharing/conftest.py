"""One real story of a model, as small as it goes: corpus, pretraining, mixture, finetuning, evaluation."""

from __future__ import annotations

import json
from pydoc_data.topics import topics

import pytest
from small_sources import Story

from metro_t0.config import load_finetune_config, load_pretrain_config
from metro_t0.data.prepare import prepare
from metro_t0.evaluation.suites import evaluate
from metro_t0.training.run import finetune, pretrain

MODEL = "d_model=16 d_kv=8 d_ff=32 num_heads=2 num_layers=1 num_decoder_layers=1 num_auxiliary_layers=1"
TRAINING = "precision=fp32 threads=1 batch_tokens=256 micro_batch_tokens=256 log_every=1 validation_rows=4"
TEMPLATES = """dataset: likeness
templates:
  a1: !Template
    id: a1
    name: is it like
    reference: ''
    answer_choices: no ||| yes
    jinja: is {{word}} like {{other}}? ||| {{answer_choices[same]}}
    metadata: !TemplateMetadata {original_task: true}
"""
TASK = "- {dataset: likeness/words, templates: templates.yaml, use: all, "


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    texts = [topics[name] for name in sorted(topics)[:20]]
    (folder / "topics.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare([folder / "topics.jsonl"], folder / "corpus", vocab_size=400, max_length=64)
    words = ["python", "module", "class", "string", "object", "value", "name", "list"]
    rows = [{"word": words[i % 8], "other": words[(i * 3 + 1) % 8], "same": i % 2} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "templates.yaml").write_text(TEMPLATES)
    (folder / "mixture.yaml").write_text(f"name: small mixture\ntasks:\n{TASK}train: rows.jsonl}}\n")
    (folder / "suite.yaml").write_text(f"name: small suite\ntasks:\n{TASK}evaluation: rows.jsonl}}\n")
    shape = [f"model.{setting}" for setting in MODEL.split()]
    how = [f"training.{setting}" for setting in TRAINING.split()]
    saves = ["training.steps=4", "training.save_every=2", "training.validate_every=2"]
    pretraining = pretrain(
        load_pretrain_config("tiny", overrides=[*shape, *how, *saves]), folder / "corpus", folder / "pretrain"
    )
    settings = load_finetune_config("finetune-tiny", overrides=[*how, "training.steps=3"])
    finetuning = finetune(settings, pretraining, folder / "mixture.yaml", folder / "finetune")
    evaluate(finetuning, folder / "suite.yaml", folder / "results")
    return Story(pretraining, finetuning, folder / "results")
