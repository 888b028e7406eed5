"""Fine-tune with the trainer of transformers, on rows of your own:

python seq2seq_trainer.py --model DIR --data rows.jsonl --out DIR --steps 200

Each line of the file is an object with the keys `input` and `target`. The last `--validation` rows are kept apart: the
trainer writes an answer to each, and the share of exact answers stands beside the loss.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, EvalPrediction, Seq2SeqTrainer, Seq2SeqTrainingArguments

from metro_t0.evaluation.loading import load_model


def read_rows(path: Path, tokenizer: Any) -> Dataset:
    """Rows with `input_ids`, `attention_mask` and `labels`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    features = tokenizer([row["input"] for row in rows], truncation=True, max_length=512)
    # The model was trained on `answer </s>`: the `<s>` that the tokenizer puts first goes.
    targets = [ids[1:] for ids in tokenizer([row["target"] for row in rows])["input_ids"]]
    return Dataset.from_dict({**features, "labels": targets})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a model folder or a run directory")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--validation", type=int, default=16, help="rows kept apart")
    parser.add_argument("--max-new-tokens", type=int, default=8)
    given = parser.parse_args()

    model, tokenizer = load_model(given.model)
    rows = read_rows(given.data, tokenizer)
    kept = min(given.validation, len(rows) // 2)
    model.generation_config.max_new_tokens = given.max_new_tokens

    def exact(prediction: EvalPrediction) -> dict[str, float]:
        texts = []
        for ids in (prediction.predictions, prediction.label_ids):
            ids = np.where(ids < 0, tokenizer.pad_token_id, ids)
            texts.append([text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)])
        return {"exact": float(np.mean([answer == target for answer, target in zip(*texts, strict=True)]))}

    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(given.out),
            max_steps=given.steps,
            per_device_train_batch_size=given.batch_size,
            per_device_eval_batch_size=given.batch_size,
            learning_rate=given.learning_rate,
            predict_with_generate=True,
            save_strategy="no",
            logging_steps=max(1, given.steps // 10),
            report_to="none",
        ),
        train_dataset=rows.select(range(len(rows) - kept)),
        eval_dataset=rows.select(range(len(rows) - kept, len(rows))),
        # The model makes the decoder's input of the labels.
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        processing_class=tokenizer,
        compute_metrics=exact,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    for name in ("eval_loss", "eval_exact"):
        print(f"{name} {before[name]:.4f} -> {after[name]:.4f}")
    trainer.save_model()


if __name__ == "__main__":
    main()
