"""A model as two programs without Python code: its encoder and one step of its decoder, by torch.export:

python export.py --model DIR --out DIR --prompt "Is it cold in winter?"

`encoder.pt2` takes ids and a mask, any number of rows and any length, and gives each decoder layer's keys and values
of the prompt. `step.pt2` takes a token a row, those, and the keys and values of what is written so far; it gives logits
and the longer keys and values. Both are written, read again, and write an answer, which is compared with the model's.
"""

import argparse
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram, export
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from metro_t0.evaluation.loading import load_model
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration

# A layer's keys and values, each [B, H, length, K].
Layers = list[tuple[torch.Tensor, torch.Tensor]]


class PromptReader(torch.nn.Module):
    """Ids and mask `[B, S]` to the keys and values that every decoder layer looks at."""

    def __init__(self, model: MetroT0ForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Layers:
        states = self.model.encoder(input_ids, attention_mask).last_hidden_state
        shape = (*input_ids.shape, self.model.config.num_heads, self.model.config.d_kv)
        attentions = [block.layer[1].EncDecAttention for block in self.model.decoder.block]
        return [
            (a.k(states).view(shape).transpose(1, 2), a.v(states).view(shape).transpose(1, 2))
            for a in attentions
        ]


class DecoderStep(torch.nn.Module):
    """The token of each row `[B, 1]` that was written last to logits `[B, V]` of the next, and all keys and values."""

    def __init__(self, model: MetroT0ForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, token: torch.Tensor, attention_mask: torch.Tensor, prompt: Layers, past: Layers
    ) -> tuple[torch.Tensor, Layers]:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer, (of_prompt, of_past) in enumerate(zip(prompt, past, strict=True)):
            cache.cross_attention_cache.update(*of_prompt, layer)
            cache.self_attention_cache.update(*of_past, layer)
            cache.is_updated[layer] = True
        decoded = self.model.decoder(
            token,
            encoder_hidden_states=token,  # not looked at: what the decoder needs of the prompt is in the cache
            encoder_attention_mask=attention_mask,
            past_key_values=cache,
        )
        logits = self.model.project(decoded.last_hidden_state[:, -1])
        return logits, [(layer.keys, layer.values) for layer in cache.self_attention_cache.layers]


def nothing_written(model: MetroT0ForConditionalGeneration, batch: int) -> Layers:
    """Keys and values of no token at all."""
    config = model.config
    empty = torch.zeros(batch, config.num_heads, 0, config.d_kv, dtype=model.dtype)
    return [(empty, empty)] * config.num_decoder_layers


@torch.no_grad()
def export_model(model: MetroT0ForConditionalGeneration) -> tuple[ExportedProgram, ExportedProgram]:
    """Both programs, for any number of rows, any prompt and any answer that the positions hold."""
    longest = model.config.num_positions
    rows, length, written = Dim("rows"), Dim("length", max=longest), Dim("written", min=0, max=longest - 1)
    ids = torch.full((2, 8), model.config.eos_token_id)
    mask = torch.ones_like(ids)
    read = PromptReader(model)
    encoder = export(read, (ids, mask), dynamic_shapes=({0: rows, 1: length},) * 2)
    prompt = read(ids, mask)
    past = [(keys[:, :, :4], values[:, :, :4]) for keys, values in prompt]
    shapes = (
        {0: rows},
        {0: rows, 1: length},
        [({0: rows, 2: length},) * 2] * len(prompt),
        [({0: rows, 2: written},) * 2] * len(past),
    )
    return encoder, export(DecoderStep(model), (ids[:, :1], mask, prompt, past), dynamic_shapes=shapes)


@torch.no_grad()
def write_answer(
    encoder: ExportedProgram,
    step: ExportedProgram,
    model: MetroT0ForConditionalGeneration,
    inputs: dict[str, torch.Tensor],
    max_new_tokens: int,
) -> torch.Tensor:
    """Greedy answers `[B, 1 + tokens]` by the two programs; of the model only sizes and special tokens are read."""
    run_encoder, run_step = encoder.module(), step.module()
    mask = inputs["attention_mask"]
    prompt, past = run_encoder(inputs["input_ids"], mask), nothing_written(model, len(mask))
    answer = torch.full((len(mask), 1), model.config.decoder_start_token_id)
    ended = torch.zeros(len(mask), dtype=torch.bool)
    while answer.shape[1] <= max_new_tokens and not bool(ended.all()):
        logits, past = run_step(answer[:, -1:], mask, prompt, past)
        token = logits.argmax(dim=-1).masked_fill(ended, model.config.pad_token_id)
        answer = torch.cat([answer, token.unsqueeze(1)], dim=1)
        ended |= token == model.config.eos_token_id
    return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a model folder or a run directory")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompt", nargs="+", required=True)
    parser.add_argument("--max-new-tokens", type=int, default=16)
    given = parser.parse_args()

    model, tokenizer = load_model(given.model, device="cpu")
    given.out.mkdir(parents=True, exist_ok=True)
    for name, program in zip(("encoder", "step"), export_model(model), strict=True):
        torch.export.save(program, given.out / f"{name}.pt2")
    encoder, step = (torch.export.load(given.out / f"{name}.pt2") for name in ("encoder", "step"))

    inputs = dict(tokenizer(given.prompt, padding=True, return_tensors="pt"))
    written = write_answer(encoder, step, model, inputs, given.max_new_tokens)
    expected = model.generate(**inputs, max_new_tokens=given.max_new_tokens, do_sample=False)
    for prompt, answer in zip(
        given.prompt, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True
    ):
        print(f"{prompt} -> {answer}")
    print("the same ids as generate():", torch.equal(written, expected))


if __name__ == "__main__":
    main()
