"""A folder for the Hub: everything that transformers needs to run the model, and what a reader needs to know.

export_model(read_source(Path("runs/finetune")), Path("my-model"), card="# My model")

my-model/README.md                      the model card
         config.json, model.safetensors, generation_config.json
         sp.model, dict.txt, tokenizer_config.json
         encoder_decoder.py, tokenizer.py, ...      what ``trust_remote_code=True`` runs
         data_card.json                 what it was trained on, where the source says so
         pretraining/                   all of it with auxiliary model and detection head, where the source has them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metro_t0.data.output import new_directory
from metro_t0.sharing.remote_code import MODEL_CLASSES, TOKENIZER_CLASSES, write_remote_code

if TYPE_CHECKING:
    import torch

    from metro_t0.sharing.source import Source
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

PRETRAINING = "pretraining"


def export_model(source: Source, out: Path, card: str, data_card: Mapping[str, Any] | None = None) -> None:
    """Write the folder, whole or not at all.

    Args:
        source: the model.
        out: the folder to make.
        card: the text of its ``README.md``.
        data_card: what it was trained on, by which ``metro-t0 evaluate`` knows what is no zero-shot score.

    Raises:
        ValueError: ``out`` holds something, or it cannot be written.
    """
    with new_directory(out) as folder:
        try:
            _write_model(
                source, source.main_weights, folder, "MetroT0ForConditionalGeneration", MODEL_CLASSES
            )
            write_generation_config(source, folder)
            write_tokenizer(source.tokenizer, folder, auto_map=TOKENIZER_CLASSES)
            write_remote_code(folder)
            (folder / "README.md").write_text(card, encoding="utf-8")
            if data_card:
                write_json(folder / "data_card.json", data_card)
            if source.has_pretraining_parts:
                inner = folder / PRETRAINING
                inner.mkdir()
                _write_model(source, source.weights, inner, "MetroT0ForPreTraining")
                write_tokenizer(source.tokenizer, inner)
        except OSError as error:
            raise ValueError(f"cannot write to {out}: {error.strerror or error}") from error


def _write_model(
    source: Source,
    weights: Mapping[str, torch.Tensor],
    folder: Path,
    architecture: str,
    auto_map: Mapping[str, str] | None = None,
) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    described = {**source.config.to_diff_dict(), "architectures": [architecture]}
    described.pop("auto_map", None)
    if auto_map is not None:
        described["auto_map"] = dict(auto_map)
    write_json(folder / "config.json", described)
    file = folder / "model.safetensors"
    try:
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(contiguous, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise ValueError(f"the weights cannot be written: {error}") from error
    # safetensors' own files are their owner's alone.
    file.chmod((folder / "config.json").stat().st_mode)


def write_generation_config(source: Source, folder: Path) -> None:
    """``generation_config.json``: the source's own, or what the model's configuration says.

    Raises:
        ValueError: the source's own cannot be read.
    """
    from transformers import GenerationConfig

    own = source.folder is not None and (source.folder / "generation_config.json").is_file()
    if own:
        try:
            settings = GenerationConfig.from_pretrained(str(source.folder))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"generation_config.json in {source.folder} cannot be read: {error}") from error
    else:
        settings = GenerationConfig.from_model_config(source.config)
    settings.save_pretrained(str(folder))


def write_tokenizer(
    tokenizer: MetroT0Tokenizer, folder: Path, auto_map: Mapping[str, Any] | None = None
) -> None:
    """``sp.model``, ``dict.txt`` and ``tokenizer_config.json``, into a folder that is there."""
    tokenizer.save_pretrained(str(folder))
    dictionary = folder / "dict.txt"
    if not dictionary.exists():
        dictionary.write_text(dictionary_text(tokenizer), encoding="utf-8")
    file = folder / "tokenizer_config.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    for passing in ("auto_map", "backend", "is_local", "local_files_only"):
        described.pop(passing, None)
    if auto_map is not None:
        described["auto_map"] = dict(auto_map)
    write_json(file, described)


def dictionary_text(tokenizer: MetroT0Tokenizer) -> str:
    """The dictionary as fairseq writes one: each piece from id 4 on and a count, which nothing reads."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(4, tokenizer.mask_id)))
    return "".join(f"{piece} 1\n" for piece in pieces)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
