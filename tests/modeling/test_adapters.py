"""LoRA by peft: only the added weights learn and are saved, and merged they give what they gave beside the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from tiny_networks import PAD, random_ids, randomize, tiny_config

peft = pytest.importorskip("peft")
# peft asks for a name that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

IDS = random_ids([12, 5, 8])
LABELS = IDS.masked_fill(IDS == PAD, -100)


def base() -> MetroT0ForConditionalGeneration:
    return randomize(MetroT0ForConditionalGeneration(tiny_config())).eval()


def adapted(steps: int = 3, checkpointing: bool = False) -> peft.PeftModel:
    torch.manual_seed(0)
    model = base()
    if checkpointing:
        model.gradient_checkpointing_enable()
    settings = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q", "v"], lora_dropout=0.0)
    model = peft.get_peft_model(model, settings)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.05)
    model.train()
    for _ in range(steps):
        model(input_ids=IDS, labels=LABELS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, decoder_input_ids=IDS[:, :5], use_cache=False).logits


def test_only_the_added_weights_learn() -> None:
    model, before = adapted(), dict(base().named_parameters())
    attentions = 2 + 2 * 3  # two encoder layers; self- and cross-attention of three decoder layers
    added = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(added) == attentions * len("qv") * len("AB")
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            assert torch.equal(parameter, before[plain]), name
    assert not torch.allclose(logits(model), logits(base()))
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base()))


def test_only_the_added_weights_are_saved(tmp_path: Path) -> None:
    model = adapted()
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} <= {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
    }
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved and all("lora_" in name for name in saved)
    again = peft.PeftModel.from_pretrained(base(), tmp_path).eval()
    assert torch.equal(logits(again), logits(model))


def test_merged_they_give_the_same(tmp_path: Path) -> None:
    model = adapted()
    expected = logits(model)
    written = model.generate(input_ids=IDS, attention_mask=IDS.ne(PAD).long(), max_new_tokens=6)
    merged = model.merge_and_unload()
    assert isinstance(merged, MetroT0ForConditionalGeneration)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    merged.save_pretrained(tmp_path)
    again = MetroT0ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again), logits(merged))
    assert torch.equal(
        again.generate(input_ids=IDS, attention_mask=IDS.ne(PAD).long(), max_new_tokens=6), written
    )


def test_checkpointing_changes_no_adapter() -> None:
    for plain, checkpointed in zip(
        adapted().parameters(), adapted(checkpointing=True).parameters(), strict=True
    ):
        torch.testing.assert_close(checkpointed, plain)
