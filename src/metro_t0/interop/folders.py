"""A network from a model folder or the Hub, whole or not at all.

>>> network = read_network(MetroT0ForConditionalGeneration, "metro_t0_base", dtype=torch.float32)

transformers makes up weights that a folder lacks and leaves out those that the network has no place for, with a
warning. Here each is an error that names the first such weight. ``pytorch_model.bin`` goes through torch's restricted
unpickler (``weights_only=True``), so that nothing in it can run.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from metro_t0.interop.unpickling import refused_name
from metro_t0.modeling.configuration import MetroT0Config

# Buffers without a value that fairseq's modules leave in a checkpoint.
VALUELESS = re.compile(r"(^|\.)(version|_float_tensor)$")
_TOKENIZER_FILES = ("sp.model", "dict.txt")


def read_network(kind: Any, folder: str | Path, dtype: torch.dtype, **settings: Any) -> PreTrainedModel:
    """``kind.from_pretrained``, where every weight of the network comes from the folder.

    Args:
        kind: a model class or one of transformers' Auto classes.
        folder: a model folder or a Hub name.
        dtype: of the weights; what is stored in half precision is converted.
        settings: of the configuration, such as ``relative_attention_max_distance=256``, or ``config`` itself.

    Raises:
        ValueError: the weights cannot be read, would run code, are of another shape than the configuration says, or
            do not make a whole network.
    """
    network, missing = read_parts(kind, folder, dtype, **settings)
    if missing:
        raise ValueError(
            f"the weights in {folder} are not those of a whole model: {_some(missing)} missing, "
            "and would have been random"
        )
    return network


def read_parts(
    kind: Any, folder: str | Path, dtype: torch.dtype, **settings: Any
) -> tuple[PreTrainedModel, list[str]]:
    """As ``read_network``, but a network with weights that the folder lacks is given too, beside their names."""
    try:
        with _quiet_transformers():
            network, info = kind.from_pretrained(
                str(folder), dtype=dtype, output_loading_info=True, **settings
            )
    except pickle.UnpicklingError as error:
        refused = refused_name(error)
        reason = (
            f"it asks for {refused}, which is no part of a model and could run code" if refused else "damaged"
        )
        raise ValueError(f"the weights in {folder} cannot be read: {reason}") from error
    except (OSError, ImportError, SafetensorError) as error:
        raise ValueError(f"cannot read the model at {folder}: {_first_words(error)}") from error
    except (KeyError, RuntimeError, TypeError, AttributeError, EOFError, IndexError) as error:
        if isinstance(error, RuntimeError):
            _name_a_mismatch(kind, folder, settings)
        raise ValueError(
            f"the weights in {folder} cannot be read: they are damaged or of another kind ({_first_words(error)})"
        ) from error
    unexpected = sorted(name for name in info["unexpected_keys"] if not VALUELESS.search(name))
    # Other kinds of model are often saved with more than one of their classes needs.
    if unexpected and isinstance(network.config, MetroT0Config):
        raise ValueError(
            f"the weights in {folder} do not fit its config.json: {_some(unexpected)} of no use in the network "
            "that it describes"
        )
    return network, sorted(info["missing_keys"])


def check_files(folder: str | Path) -> None:
    """Look for what a folder of the published format must hold beside its weights; of a Hub name nothing is known.

    Raises:
        ValueError: says which file is missing.
    """
    for name in _TOKENIZER_FILES if Path(folder).is_dir() else ():
        if not (Path(folder) / name).is_file():
            raise ValueError(f"the model at {folder} lacks {name}: its tokenizer is sp.model and dict.txt")


def _name_a_mismatch(kind: Any, folder: str | Path, settings: dict[str, Any]) -> None:
    """transformers says only that a shape is wrong; say which, where it is that.

    Asked to pass over such weights it lists them, but fails at tied ones: they are read untied.
    """
    if isinstance(settings.get("config"), PreTrainedConfig):
        untied = {"config": copy(settings["config"])}
        untied["config"].tie_word_embeddings = False
    else:
        untied = {**settings, "tie_word_embeddings": False}
    try:
        with _quiet_transformers():
            _, info = kind.from_pretrained(
                str(folder), ignore_mismatched_sizes=True, output_loading_info=True, **untied
            )
    except Exception:  # then the first error stands
        return
    for name, there, here in sorted(info["mismatched_keys"]):
        raise ValueError(
            f"the weights in {folder} do not fit its config.json: {name} is {list(there)}, "
            f"where the configuration asks for {list(here)}"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return names[0] + more


def _first_words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its bars, and without its report of what does not fit, which is said here in one line."""
    drew_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if drew_bars:
            logging.enable_progress_bar()
