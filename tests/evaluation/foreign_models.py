"""Small T5 and BART models with random weights and real tokenizers of their kinds, saved as anyone saves them."""

from __future__ import annotations

from pathlib import Path

import torch
from small_models import WORDS
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)


def make_foreign_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """T5's layout (``<pad>`` 0, ``</s>`` 1, no start token) or BART's (``<s>`` 0, ``<pad>`` 1, ``</s>`` 2)."""
    special = ["<pad>", "</s>", "<unk>"] if kind == "t5" else ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    start = "" if kind == "t5" else "<s> "
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}$A </s>", special_tokens=[(token, special.index(token)) for token in special]
    )
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if kind == "bart":
        names |= {"bos_token": "<s>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def save_foreign_model(kind: str, folder: Path) -> Path:
    """The model and its tokenizer in a folder. BART has 64 positions; T5's embedding has more rows than are used."""
    tokenizer = make_foreign_tokenizer(kind)
    torch.manual_seed(3)
    model: PreTrainedModel
    if kind == "t5":
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(tokenizer) + 8,
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=2,
                num_heads=2,
                decoder_start_token_id=0,
            )
        )
    else:
        model = BartForConditionalGeneration(
            BartConfig(
                vocab_size=len(tokenizer),
                d_model=16,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_position_embeddings=64,
            )
        )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
