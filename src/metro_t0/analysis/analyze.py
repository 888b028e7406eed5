"""The METRO-T0 paper's two analyses, neural activation and parameter sensitivity, on any model of its kind.

    record = analyze(Path("runs/pretrain"), corpus=Path("prepared"), prompts="suite.yaml", data_root=Path("data"))
    record["activation"]["text"][0]["share"], record["sensitivity"]["overall"]["gini"]

Every model is asked the same: activation is counted while the encoder reads a row and the decoder is fed with the
answer (prompts) or with the row itself (text); sensitivity is of one loss, by default the answers' cross entropy where
there are prompts, else span corruption. See ``docs/analysis.md`` for the record's fields and what they mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from metro_t0.analysis.activation import ActivationCounter
from metro_t0.analysis.inputs import Rows, cut_into_batches, encode_prompts, read_prompts, read_text
from metro_t0.analysis.parameters import parameter_groups
from metro_t0.analysis.sensitivity import SensitivityMeter
from metro_t0.analysis.statistics import rank_correlation
from metro_t0.analysis.subject import Loss, Subject, open_subject
from metro_t0.analysis.zeroing import chosen_groups, zeroed
from metro_t0.evaluation.loading import model_folder
from metro_t0.evaluation.ranking.rank import progress_bar
from metro_t0.evaluation.report.page import distinct_names
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.objectives.base import Batch, Objective
from metro_t0.objectives.sequence_to_sequence import collate_pairs

if TYPE_CHECKING:
    from rich.console import Console

Record = dict[str, Any]
FORMAT_VERSION = 1
_LONGEST_ANSWER = 256


@dataclass(frozen=True)
class AnalysisSettings:
    """How much is read, and which loss sensitivity is of.

    Attributes:
        rows: rows of text, and prompts, at most.
        batch_tokens: padded tokens of encoder and decoder that go through the network at once, and of whose mean loss a
            gradient is.
        max_length: tokens of a row of text or of a prompt that are read.
        loss: ``prompts``, the cross entropy of the right answers; ``span-corruption``, T5's on text; ``own``, that of
            the run that made the model; ``auto``, prompts where there are any, else span corruption.
        zeroed_layers: layers of each stack whose groups are zeroed; 0 leaves this check out.
        zeroed_rows: on about how many rows the loss is measured for it: on whole batches, at least one.
        seed: of the rows, the prompts' order and whatever the loss draws.

    Raises:
        ValueError: a number that cannot be.
    """

    rows: int = 64
    batch_tokens: int = 4096
    max_length: int = 512
    loss: Literal["auto"] | Loss = "auto"
    zeroed_layers: int = 4
    zeroed_rows: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("rows", 1),
            ("batch_tokens", 1),
            ("max_length", 3),
            ("zeroed_layers", 0),
            ("zeroed_rows", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")


def analyze(
    model: str | Path,
    *,
    corpus: Path | None = None,
    prompts: str | Path | None = None,
    templates: Path | None = None,
    data_root: Path | None = None,
    settings: AnalysisSettings | None = None,
    console: Console | None = None,
) -> Record:
    """Measure a model's activation and sensitivity.

    Args:
        model: a run directory, a model folder, or a Hub name of the published format.
        corpus: a folder of ``metro-t0 prepare``, of which the held-out part is read, or a file of text.
        prompts: a suite (``t0``, ``mmlu``) or a suite's or mixture's file, read as ``metro-t0 evaluate`` reads it.
        templates: in place of those that the suite names.
        data_root: in place of the suite's own.
        settings: by default as :class:`AnalysisSettings`.
        console: shows a progress bar.

    Returns:
        What is measured, ready for JSON; see ``docs/analysis.md``.

    Raises:
        ValueError: there is nothing to read, a source is missing or broken, or the model cannot be asked the loss.
    """
    settings = settings or AnalysisSettings()
    start = time.perf_counter()
    loss = _loss(settings, corpus, prompts)
    questions = (
        read_prompts(
            prompts, rows=settings.rows, seed=settings.seed, templates=templates, data_root=data_root
        )
        if prompts is not None
        else None
    )
    subject = open_subject(model, loss)
    longest = min(settings.max_length, subject.network.config.num_positions)
    inputs: dict[str, Rows] = {}
    if corpus is not None:
        inputs["text"] = read_text(
            corpus, subject.tokenizer, rows=settings.rows, longest=longest, seed=settings.seed
        )
    if questions is not None:
        inputs["prompts"] = encode_prompts(
            questions,
            subject.tokenizer,
            longest_input=longest,
            longest_answer=min(longest, _LONGEST_ANSWER),
        )
    asked = "prompts" if subject.loss_name == "prompts" else "text"
    if asked not in inputs:
        raise ValueError(
            f"{model} was finetuned on prompts, and its own loss needs some: --prompts FILE, a suite or a mixture"
            if asked == "prompts"
            else f"{model} was pretrained on text, and its own loss needs some: --data DIR, a prepared corpus or a file"
        )
    activation = {
        name: _activation(subject.network, rows, settings, name, console) for name, rows in inputs.items()
    }
    sensitivity = _sensitivity(subject, inputs[asked], settings, console)
    return _rounded(
        {
            "format_version": FORMAT_VERSION,
            "model": _model_facts(subject),
            "settings": asdict(settings),
            "inputs": {
                name: {
                    "source": Path(str(corpus if name == "text" else prompts)).name,
                    "rows": len(rows.rows),
                    "tokens": rows.tokens,
                    "note": rows.note,
                }
                for name, rows in inputs.items()
            },
            "activation": activation,
            "sensitivity": {"loss": subject.loss_name, "input": asked, **sensitivity},
            "seconds": time.perf_counter() - start,
        }
    )


def analyze_all(models: Sequence[str | Path], **arguments: Any) -> list[Record]:
    """:func:`analyze` of each model by the same arguments, under names that tell them apart.

    Raises:
        ValueError: as ``analyze``; that a model is not there is said before the first one is measured.
    """
    for model in models:
        model_folder(model)
    records = [analyze(model, **arguments) for model in models]
    for record, name in zip(records, distinct_names([Path(model) for model in models]), strict=True):
        record["model"]["name"] = name
    return records


def _loss(settings: AnalysisSettings, corpus: Path | None, prompts: str | Path | None) -> Loss:
    if corpus is None and prompts is None:
        raise ValueError("nothing to read: give --data DIR (text), --prompts FILE, or both")
    loss: Loss = (
        settings.loss if settings.loss != "auto" else "span-corruption" if prompts is None else "prompts"
    )
    if loss == "prompts" and prompts is None:
        raise ValueError("the loss on prompts needs --prompts FILE, a suite's or mixture's file")
    if loss == "span-corruption" and corpus is None:
        raise ValueError("the loss on text needs --data DIR, a prepared corpus or a text file")
    return loss


def _activation(
    network: MetroT0ForConditionalGeneration,
    rows: Rows,
    settings: AnalysisSettings,
    name: str,
    console: Console | None,
) -> list[Record]:
    """The encoder reads a row, the decoder the same row or the answer, as in training."""
    config = network.config
    columns = ("input_ids", "labels" if name == "prompts" else "input_ids")
    # As finetuning and pretraining start the decoder.
    start = config.decoder_start_token_id if name == "prompts" else config.mask_token_id
    with (
        ActivationCounter(network) as counter,
        torch.no_grad(),
        progress_bar(console, len(rows.rows), f"Activation on {name}") as advance,
    ):
        pairs = [{column: row[column] for column in columns} for row in rows.rows]
        # A row of text is read twice.
        for places in cut_into_batches(pairs, settings.batch_tokens // (3 - len(set(columns)))):
            sources, targets = ([rows.rows[place][column] for place in places] for column in columns)
            batch = collate_pairs(
                sources, targets, pad_token_id=config.pad_token_id, decoder_start_token_id=start
            )
            _read(network, batch)
            advance(len(places))
    return [asdict(layer) for layer in counter.summary()]


def _read(network: MetroT0ForConditionalGeneration, batch: Batch) -> None:
    """Through both stacks, without the vocabulary's projection."""
    batch = {name: tensor.to(network.device) for name, tensor in batch.items()}
    encoded = network.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    network.decoder(
        input_ids=batch["decoder_input_ids"],
        encoder_hidden_states=encoded,
        encoder_attention_mask=batch["attention_mask"],
    )


def _sensitivity(subject: Subject, rows: Rows, settings: AnalysisSettings, console: Console | None) -> Record:
    network, objective = subject.network, subject.objective(settings.seed)
    cut = cut_into_batches(rows.rows, settings.batch_tokens)
    batches = [
        objective.collate([rows.rows[place] for place in places], [(0, place) for place in places])
        for places in cut
    ]
    meter = SensitivityMeter(network)
    losses = []
    with progress_bar(console, len(rows.rows), "Sensitivity") as advance:
        for places, batch in zip(cut, batches, strict=True):
            network.zero_grad(set_to_none=True)
            loss = _loss_of(network, objective, batch)
            loss.backward()
            meter.add()
            losses.append(float(loss.detach()))
            advance(len(places))
    network.zero_grad(set_to_none=True)
    found = meter.summary()
    rows_so_far = np.cumsum([len(places) for places in cut])
    checked = min(int(np.searchsorted(rows_so_far, settings.zeroed_rows)) + 1, len(cut))

    def mean_loss() -> float:
        return _mean_loss(network, objective, batches[:checked])

    zeroing = _zeroing(network, meter, mean_loss, checked, settings, console)
    return {
        "mean_loss": sum(losses) / len(losses),
        "batches": found.batches,
        "overall": {
            "parameters": found.parameters,
            "mass": found.mass,
            "gini": found.gini,
            "share_for_half": found.share_for_half,
            "held_by_top": dict(found.held_by_top),
            "lorenz": found.lorenz,
        },
        "groups": [asdict(group) for group in found.groups],
        **zeroing,
    }


def _loss_of(network: MetroT0ForConditionalGeneration, objective: Objective, batch: Batch) -> torch.Tensor:
    # Whatever is drawn came with the batch, so that two calls draw the same.
    return objective(network, {name: tensor.to(network.device) for name, tensor in batch.items()}).loss


@torch.no_grad()
def _mean_loss(
    network: MetroT0ForConditionalGeneration, objective: Objective, batches: Sequence[Batch]
) -> float:
    return sum(float(_loss_of(network, objective, batch)) for batch in batches) / len(batches)


def _zeroing(
    network: MetroT0ForConditionalGeneration,
    meter: SensitivityMeter,
    mean_loss: Callable[[], float],
    batches: int,
    settings: AnalysisSettings,
    console: Console | None,
) -> Record:
    """Each chosen group's first-order numbers and what zeroing it costs, over the same batches."""
    if settings.zeroed_layers == 0:
        return {"zeroed": [], "rank_correlation": None}
    first_order = meter.first_order(batches)
    parameters = parameter_groups(network)
    groups = chosen_groups(first_order, settings.zeroed_layers)
    before = mean_loss()
    lost: list[float] = []
    with progress_bar(console, len(groups), "Zeroing groups") as advance:
        for group in groups:
            with zeroed(parameters[group]):
                lost.append(mean_loss() - before)
            advance(1)
    masses, changes = ([getattr(first_order[g], name) for g in groups] for name in ("mass", "change"))
    sizes = [sum(parameter.numel() for parameter in parameters[group]) for group in groups]
    return {
        "zeroed": [
            {**asdict(group), "mass": mass, "first_order": change, "lost": loss}
            for group, mass, change, loss in zip(groups, masses, changes, lost, strict=True)
        ],
        "rank_correlation": {
            # A sum of magnitudes says how much moves, not which way.
            "mass": rank_correlation(masses, np.abs(lost)),
            "first_order": rank_correlation(changes, lost),
            # What anyone could have guessed without a gradient.
            "parameters": rank_correlation(sizes, np.abs(lost)),
        },
    }


def _model_facts(subject: Subject) -> Record:
    config = subject.network.config
    run = subject.config
    return {
        "name": Path(subject.path).name,
        "parameters": sum(parameter.numel() for parameter in subject.network.parameters()),
        "objective": run.objective.kind if run is not None else None,
        "encoder_layers": config.num_layers,
        "decoder_layers": config.num_decoder_layers,
        "d_model": config.d_model,
        "d_ff": config.d_ff,
        "vocabulary": config.vocab_size,
    }


def _rounded(value: Any) -> Any:
    """Floats to six figures, so that a record stays small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
