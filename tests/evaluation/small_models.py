"""Small models with a small real tokenizer, and rank classification computed the plain way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch

from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

WORDS = """
the a river sold small engine old clock lawyer committee painted carried her brother yes no maybe true false
neither which what does it follow that opened repaired remembered ignored two children my neighbour happens next
""".split()  # noqa: SIM905


def make_tokenizer(folder: Path) -> MetroT0Tokenizer:
    """A SentencePiece unigram model of 60 pieces in the published layout, with 512 sentinels."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = [" ".join(pair) for pair in itertools.permutations(WORDS, 2)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "sp"),
        vocab_size=60,
        model_type="unigram",
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        bos_piece="[CLS]",
        pad_piece="[PAD]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        user_defined_symbols=["[MASK]"],
        minloglevel=2,
    )
    (folder / "sp.vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sp.model"))
    pieces = [processor.id_to_piece(index) for index in range(4, processor.get_piece_size())]
    (folder / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in pieces), encoding="utf-8")
    return MetroT0Tokenizer(
        str(folder / "sp.model"), str(folder / "dict.txt"), lower=True, n_sentinel_tokens=512
    )


def make_model(
    tokenizer: MetroT0Tokenizer, *, seed: int = 0, layers: int = 2, heads: int = 4, positions: int = 64
) -> MetroT0ForConditionalGeneration:
    """Random weights, large enough that answers differ clearly; dropout on, for ranking to turn off."""
    torch.manual_seed(seed)
    config = MetroT0Config(
        vocab_size=len(tokenizer),
        d_model=8 * heads,
        d_kv=8,
        d_ff=64,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        max_positions=positions,
        num_positions=positions,
        dropout_rate=0.3,
    )
    model = MetroT0ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.3)
    return model.train()


@torch.no_grad()
def rank_plainly(
    model: MetroT0ForConditionalGeneration,
    tokenizer: MetroT0Tokenizer,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_input_length: int = 512,
    max_choice_length: int = 256,
) -> list[list[float]]:
    """As the official code does it: the prompt repeated for each answer, padded together, a full log-softmax."""
    training = model.training
    model.eval()
    scores = []
    for prompt, row in zip(prompts, choices, strict=True):
        source = tokenizer(
            [prompt] * len(row), truncation=True, max_length=max_input_length, return_tensors="pt"
        )
        targets = [tokenizer(c, truncation=True, max_length=max_choice_length)["input_ids"][1:] for c in row]
        labels = torch.full((len(row), max(map(len, targets))), -100)
        for index, target in enumerate(targets):
            labels[index, : len(target)] = torch.tensor(target)
        output = model(input_ids=source["input_ids"], attention_mask=source["attention_mask"], labels=labels)
        log_probabilities = output.logits.log_softmax(-1)
        chosen = log_probabilities.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        scores.append(chosen.masked_fill(labels < 0, 0.0).sum(-1).tolist())
    model.train(training)
    return scores
