"""The trainers of transformers on rows of a real Dataset: the loss falls, answers are written, folders load again."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer
from tiny_networks import tiny_config

pytest.importorskip("accelerate")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory'"),
]

COLOURS = ("red", "green", "blue", "black")


def sentences(number: int) -> list[dict[str, str]]:
    rng = random.Random(0)
    rows = []
    for _ in range(number):
        colour = rng.choice(COLOURS)
        rows.append(
            {"input": f"House {rng.randint(1, 90)} is {colour}. Which colour is it?", "target": colour}
        )
    return rows


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> MetroT0Tokenizer:
    folder = tmp_path_factory.mktemp("vocabulary") / "small"
    texts = [f"{row['input']} {row['target']}" for row in sentences(60)]
    train_tokenizer(texts, 90, folder, num_sentinel_tokens=4)
    return MetroT0Tokenizer.from_pretrained(folder)


def network(tokenizer: MetroT0Tokenizer, **changes: Any) -> MetroT0ForConditionalGeneration:
    torch.manual_seed(0)
    size = {"d_model": 48, "d_kv": 12, "num_heads": 4, "d_ff": 96, "num_positions": 64, "max_positions": 64}
    vocabulary = {"vocab_size": len(tokenizer), "num_sentinel_tokens": tokenizer.num_sentinel_tokens}
    config = tiny_config(num_layers=1, num_decoder_layers=1, **size, **vocabulary, **changes)
    return MetroT0ForConditionalGeneration(config)


def dataset(tokenizer: MetroT0Tokenizer, rows: list[dict[str, str]]) -> Dataset:
    def encode(row: dict[str, str]) -> dict[str, Any]:
        return {**tokenizer(row["input"]), "labels": tokenizer(row["target"])["input_ids"][1:]}

    return Dataset.from_list(rows).map(encode, remove_columns=["input", "target"])


def arguments(folder: Path, steps: int, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": 16,
        "learning_rate": 3e-3,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        **more,
    }


def test_seq2seq_trainer_learns_and_writes(tokenizer: MetroT0Tokenizer, tmp_path: Path) -> None:
    model = network(tokenizer)
    model.generation_config.max_new_tokens = 6
    rows = dataset(tokenizer, sentences(160))

    def exact(prediction: Any) -> dict[str, float]:
        ids = [np.where(part < 0, 1, part) for part in (prediction.predictions, prediction.label_ids)]
        written, wanted = (tokenizer.batch_decode(part, skip_special_tokens=True) for part in ids)
        return {
            "exact": float(np.mean([w.strip() == t.strip() for w, t in zip(written, wanted, strict=True)]))
        }

    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(**arguments(tmp_path / "run", 80), predict_with_generate=True),
        train_dataset=rows.select(range(128)),
        eval_dataset=rows.select(range(128, 160)),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        processing_class=tokenizer,
        compute_metrics=exact,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] / 2
    assert after["eval_exact"] > max(before["eval_exact"], 0.5)

    trainer.save_model(str(tmp_path / "model"))
    again = MetroT0ForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    inputs = MetroT0Tokenizer.from_pretrained(tmp_path / "model")(
        [row["input"] for row in sentences(8)], padding=True, return_tensors="pt"
    )
    assert torch.equal(again.generate(**inputs), model.generate(**inputs))


@pytest.mark.slow
def test_reviews_of_films(real_data: Path, golden: Path, tmp_path: Path) -> None:
    """A thousand rows of rotten_tomatoes and the golden model: from nonsense to one of the two answers."""
    file = real_data / "tasks" / "rotten_tomatoes" / "default" / "train.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        reviews = [json.loads(line) for line in lines]
    random.Random(0).shuffle(reviews)
    names = ("bad", "good")
    texts = [
        {"input": f"{row['text']} Good or bad?", "target": names[row["label"]]} for row in reviews[:1100]
    ]
    tokenizer = MetroT0Tokenizer.from_pretrained(golden / "hf_tiny")
    model = MetroT0ForConditionalGeneration.from_pretrained(golden / "hf_tiny")
    rows = dataset(tokenizer, texts)
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            **arguments(tmp_path, 250), predict_with_generate=True, generation_max_length=5
        ),
        train_dataset=rows.select(range(1000)),
        eval_dataset=rows.select(range(1000, 1100)),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        processing_class=tokenizer,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert after < min(before / 10, 0.4)  # two tokens, one of them certain: a coin has log(2) / 2 = 0.35
    written = tokenizer.batch_decode(
        trainer.predict(rows.select(range(1000, 1100))).predictions.clip(min=1), True
    )
    assert {text.strip() for text in written} <= set(names)


def test_trainer_stops_and_goes_on(tokenizer: MetroT0Tokenizer, tmp_path: Path) -> None:
    """Ten steps in two halves, from its own checkpoint, end where ten at once end."""
    rows = dataset(tokenizer, sentences(64))

    def train(folder: Path, resume: bool = False, **more: Any) -> MetroT0ForConditionalGeneration:
        model = network(tokenizer, dropout_rate=0.1)
        settings = arguments(folder, 10, lr_scheduler_type="constant", logging_steps=5, **more)
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**settings),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        )
        trainer.train(resume_from_checkpoint=resume)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert losses[-1] < losses[0]
        return model

    whole = train(tmp_path / "run", save_strategy="steps", save_steps=5)
    for file in (tmp_path / "run" / "checkpoint-10").iterdir():
        file.unlink()
    (tmp_path / "run" / "checkpoint-10").rmdir()
    resumed = train(tmp_path / "run", resume=True)
    for (name, expected), found in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(found, expected), name


def test_trainer_with_gradient_checkpointing(tokenizer: MetroT0Tokenizer, tmp_path: Path) -> None:
    """The same weights after a few steps, dropout included: what is recomputed draws as it drew."""
    rows = dataset(tokenizer, sentences(64))
    trained = []
    for checkpointing in (False, True):
        model = network(tokenizer, dropout_rate=0.1)
        Trainer(
            model=model,
            args=TrainingArguments(**arguments(tmp_path, 3, gradient_checkpointing=checkpointing)),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        ).train()
        trained.append(model)
    for (name, plain), checkpointed in zip(
        trained[0].named_parameters(), trained[1].parameters(), strict=True
    ):
        torch.testing.assert_close(checkpointed, plain, msg=name)


def test_accumulated_steps_weigh_every_token_alike(tokenizer: MetroT0Tokenizer, tmp_path: Path) -> None:
    """One step of 16 rows is one of four times 4 rows, although their answers differ in length."""
    rows = dataset(
        tokenizer, [{**row, "target": row["input"][: 5 + 2 * n]} for n, row in enumerate(sentences(16))]
    )
    trained = []
    for size, times in ((16, 1), (4, 4)):
        model = network(tokenizer)
        settings = arguments(tmp_path, 1, gradient_accumulation_steps=times, optim="sgd", max_grad_norm=0.0)
        settings |= {
            "per_device_train_batch_size": size,
            "learning_rate": 1.0,
            "lr_scheduler_type": "constant",
        }
        Trainer(
            model=model,
            args=TrainingArguments(**settings),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        ).train()
        trained.append(model)
    for (name, whole), parts in zip(trained[0].named_parameters(), trained[1].parameters(), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5, msg=name)
