"""Fine-tune a few added weights alone (LoRA, by the library peft), on rows of your own:

python lora.py --model DIR --data rows.jsonl --out DIR --steps 200

Each line of the file is an object with the keys `input` and `target`. `--out` then holds the added weights only
(`adapter_model.safetensors`); `--merged DIR` writes a whole model too, in which they are added in.
"""

import argparse
import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from metro_t0.evaluation.generation import generate_texts
from metro_t0.evaluation.loading import load_model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a model folder or a run directory")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--merged", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=8)
    given = parser.parse_args()

    base, tokenizer = load_model(given.model)
    rows = [json.loads(line) for line in given.data.read_text(encoding="utf-8").splitlines()]
    torch.manual_seed(0)
    # Queries and values of every attention: self- and cross-attention, encoder and decoder.
    settings = LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=given.rank, lora_alpha=2 * given.rank, target_modules=["q", "v"]
    )
    model = get_peft_model(base, settings)
    model.print_trainable_parameters()

    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=given.learning_rate)
    model.train()
    for step in range(given.steps):
        batch = [rows[(step * given.batch_size + row) % len(rows)] for row in range(given.batch_size)]
        inputs = tokenizer(
            [row["input"] for row in batch], padding=True, truncation=True, return_tensors="pt"
        )
        # The model was trained on `answer </s>`: the `<s>` that the tokenizer puts first goes.
        targets = tokenizer([row["target"] for row in batch], padding=True, return_tensors="pt").input_ids[
            :, 1:
        ]
        labels = targets.masked_fill(targets == tokenizer.pad_token_id, -100)
        loss = model(**inputs.to(base.device), labels=labels.to(base.device)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in (0, given.steps - 1):
            print(f"step {step + 1}: loss {loss.item():.4f}")
    model.save_pretrained(given.out)

    # Read again, as one would later: the model as it was, and the added weights.
    base, tokenizer = load_model(given.model)
    merged = PeftModel.from_pretrained(base, given.out).eval().merge_and_unload()
    for answer in generate_texts(merged, tokenizer, [rows[0]["input"]], max_new_tokens=8):
        print(f"{answer.input} -> {answer.output}")
    if given.merged:
        merged.save_pretrained(given.merged)
        tokenizer.save_pretrained(given.merged)


if __name__ == "__main__":
    main()
