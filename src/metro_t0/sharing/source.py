"""A model to hand on: configuration, tensors and tokenizer of whatever holds one, as they lie on the disk.

    source = read_source(Path("runs/finetune"))     # or a checkpoint, a model folder, an official .pt file
    source.weights["shared.weight"]

Tensors are never put through a model, so that each keeps its bits and its number format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from metro_t0.modeling.configuration import MetroT0Config
    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors", "*.bin", "sp.model", "dict.txt"]
_PRETRAINING_PARTS = ("auxiliary.", "rtd_head.")


@dataclass(frozen=True)
class Source:
    """What was found.

    Attributes:
        config: of the network, with the number format of its embedding as ``dtype``.
        weights: tensors under the names of ``MetroT0ForPreTraining``, or of the main model alone; of tied names the
            first, which is ``shared.weight`` for the embedding.
        tied: every further name of such a tensor -> the name it has in ``weights``.
        tokenizer: the model's own; its ids are the rows of the embedding.
        folder: where configuration and tensors lie; None for an official ``.pt`` file.
        run: the run directory that made it, where there is one.
        step: of the run, where this is one of its checkpoints.
    """

    config: MetroT0Config
    weights: Mapping[str, torch.Tensor]
    tied: Mapping[str, str]
    tokenizer: MetroT0Tokenizer
    folder: Path | None = None
    run: Path | None = None
    step: int | None = None

    @property
    def has_pretraining_parts(self) -> bool:
        """Whether an auxiliary model and a detection head are there."""
        return any(map(_is_pretraining_part, self.weights))

    @property
    def main_weights(self) -> dict[str, torch.Tensor]:
        """The tensors without those of the auxiliary model and the detection head."""
        return {name: tensor for name, tensor in self.weights.items() if not _is_pretraining_part(name)}

    @property
    def main_tied(self) -> dict[str, str]:
        """The main model's share of ``tied``."""
        return {name: first for name, first in self.tied.items() if not _is_pretraining_part(name)}


def read_source(path: Path, tokenizer: Path | None = None) -> Source:
    """Read a run directory, one of its checkpoints, a model folder (ours or published) or an official ``.pt`` file.

    Args:
        path: of it, or a name on the Hub.
        tokenizer: folder of its tokenizer, where ``path`` holds none.

    Raises:
        ValueError: there is no model, it is damaged, unfinished or of another kind, or it has no tokenizer of its own
            size.
    """
    if path.suffix == ".pt" and path.is_file():
        return _read_official(path, tokenizer)
    if not path.exists():
        path = _from_hub(str(path))
    from metro_t0.training.checkpoint import check_whole
    from metro_t0.training.starting_point import model_folder

    folder = model_folder(path)
    if (folder / "manifest.json").is_file():
        check_whole(folder)
    stated = _read_settings(folder)
    stored = _read_weights(folder)
    read = read_tokenizer(tokenizer or folder)
    # The published format has no keys for these.
    stated.setdefault("num_sentinel_tokens", read.num_sentinel_tokens)
    if "encoder.pos_embed.weight" in stored:
        stated.setdefault("num_positions", stored["encoder.pos_embed.weight"].shape[0] - 2)
    run, step = _run_of(folder)
    found = _whole(path, _configuration(folder, stated), stored, read)
    return replace(found, folder=folder, run=run, step=step)


def read_tokenizer(folder: Path) -> MetroT0Tokenizer:
    """The tokenizer of a folder.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

    if not (folder / "sp.model").is_file():
        raise ValueError(f"there is no tokenizer in {folder} (no sp.model): name its folder with --tokenizer")
    try:
        return MetroT0Tokenizer.from_pretrained(folder)
    except (OSError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"the tokenizer in {folder} cannot be read: {error}") from error


def _from_hub(name: str) -> Path:
    """A model folder on the Hub, downloaded into its cache."""
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"there is no model at {name}: there is no such folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the Hub's client, its HTTP library and the network each raise their own
        raise ValueError(
            f"there is no model at {name}: no such folder, and from the Hub: {' '.join(str(error).split())[:300]}"
        ) from error


def _read_official(path: Path, tokenizer: Path | None) -> Source:
    from metro_t0.interop.fairseq import load_pretraining

    model = load_pretraining(path)
    if tokenizer is None:
        raise ValueError(f"{path} holds no tokenizer: name its folder with --tokenizer")
    return _whole(path, model.config, model.state_dict(), read_tokenizer(tokenizer))


def _whole(
    path: Path,
    config: MetroT0Config,
    stored: Mapping[str, torch.Tensor],
    tokenizer: MetroT0Tokenizer,
) -> Source:
    """The source, if tensors, configuration and tokenizer belong together."""
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} ids, but the model at {path} has {config.vocab_size} rows in its "
            "embedding: they do not belong together"
        )
    names = _names(config, any(map(_is_pretraining_part, stored)))
    weights = _checked(path, stored, names)
    config.dtype = weights["shared.weight"].dtype
    tied = {other: first for first, (_, others) in names.items() for other in others}
    return Source(config, weights, tied, tokenizer)


def _read_settings(folder: Path) -> dict[str, Any]:
    """What ``config.json`` states, if it is of a METRO-T0 model."""
    from metro_t0.modeling.configuration import MetroT0Config

    file = folder / "config.json"
    try:
        stated: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    kind = stated.get("model_type") if isinstance(stated, dict) else None
    if kind != MetroT0Config.model_type:
        raise ValueError(f"{folder} holds no METRO-T0 model: its config.json says model_type {kind!r}")
    return dict(stated)


def _configuration(folder: Path, stated: dict[str, Any]) -> MetroT0Config:
    from metro_t0.modeling.configuration import MetroT0Config

    try:
        return MetroT0Config.from_dict(stated)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'} does not describe a METRO-T0 model: {error}") from error


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, from one file or from those that an index names."""
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return _read_file(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{index} cannot be read: {error}") from error
            return {
                key: tensor for part in parts for key, tensor in _read_file(folder / Path(part).name).items()
            }
    raise ValueError(f"{folder} holds no weights (neither {' nor '.join(_WEIGHT_FILES)})")


def _read_file(file: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from metro_t0.interop.unpickling import refused_name

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        stored: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, pickle.UnpicklingError, EOFError) as error:
        reason = "it is damaged or of another kind"
        if refused := refused_name(error):
            reason = f"it asks for {refused}, which is no part of a model and could run code"
        raise ValueError(f"the weights in {file} cannot be read: {reason}") from error
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise ValueError(f"{file} holds something else than tensors by name")
    return stored


def _names(config: MetroT0Config, with_pretraining_parts: bool) -> dict[str, tuple[torch.Tensor, list[str]]]:
    """First name of each tensor of a model -> the tensor without its values, and its further names."""
    import torch

    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
    from metro_t0.modeling.pretraining import MetroT0ForPreTraining

    kind: type[MetroT0ForConditionalGeneration] = (
        MetroT0ForPreTraining if with_pretraining_parts else MetroT0ForConditionalGeneration
    )
    with torch.device("meta"):
        model = kind(config)
    names: dict[str, tuple[torch.Tensor, list[str]]] = {}
    firsts: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        first = firsts.setdefault(id(tensor), name)
        names.setdefault(first, (tensor, []))
        if name != first:
            names[first][1].append(name)
    return names


def _checked(
    path: Path, stored: Mapping[str, torch.Tensor], names: Mapping[str, tuple[torch.Tensor, list[str]]]
) -> dict[str, torch.Tensor]:
    """Each tensor once, under its first name.

    Raises:
        ValueError: one is missing, too many, of another shape, or differs from one that it is tied to.
    """
    from metro_t0.interop.folders import VALUELESS

    weights: dict[str, torch.Tensor] = {}
    known: set[str] = set()
    for first, (expected, others) in names.items():
        found = [name for name in (first, *others) if name in stored]
        known.update(found)
        if not found:
            raise ValueError(f"the weights at {path} lack {first}")
        weights[first] = stored[found[0]]
        if weights[first].shape != expected.shape:
            raise ValueError(
                f"the weights at {path} are of another shape: {found[0]} is {list(weights[first].shape)}, where "
                f"config.json asks for {list(expected.shape)}"
            )
        if not all(_same_bits(weights[first], stored[name]) for name in found[1:]):
            raise ValueError(
                f"{' and '.join(found[:2])} at {path} differ, but a METRO-T0 model has one for both"
            )
    if unexpected := sorted(name for name in set(stored) - known if not VALUELESS.search(name)):
        raise ValueError(f"the weights at {path} hold more than a METRO-T0 model: {_listed(unexpected)}")
    return weights


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_pretraining_part(name: str) -> bool:
    return name.startswith(_PRETRAINING_PARTS)


def _run_of(folder: Path) -> tuple[Path | None, int | None]:
    """The run directory that a folder of weights lies in, and of which step it is; of none for the final model."""
    place = folder.resolve().parent
    step = re.fullmatch(r"step-(\d+)", folder.name) if place.name == "checkpoints" else None
    run = place.parent if step else place
    if (run / "config.yaml").is_file() and (run / "metrics.jsonl").is_file():
        return run, int(step[1]) if step else None
    return None, None
