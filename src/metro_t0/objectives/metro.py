"""The METRO objective: an auxiliary model's samples corrupt the text, the main model detects and corrects them.

One step (paper section 3; official ``models/t5_metro/model.py`` and ``criterions/t5_metro.py``): the auxiliary model
predicts the masked tokens; its samples replace them; the main encoder reads the corrupted text, the detection head
tells replaced from original tokens; the decoder, fed with the clean text, writes the original back.

>>> objective = MetroObjective(lm_positions="masked", rtd_positions="all", rtd_weight=50.0)
>>> output = pretrainer(original_ids=..., masked_ids=..., mask=..., objective=objective)

Shapes: B batch, T length, M most masked positions of a row, D hidden width, V vocabulary. Sums are divided by counts
given as normalizers, so that micro-batches and processes add up to the same step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metro_t0.modeling.attention import at_positions
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.base import Batch, Inspection, ObjectiveOutput, Row, RowKey
from metro_t0.objectives.calibration import calibration_totals
from metro_t0.objectives.masking import Masking, mask_tokens, row_generator
from metro_t0.objectives.padding import LENGTH_MULTIPLE, lengths_mask, pad_rows
from metro_t0.objectives.scoring import TokenScores, sample_rows, score_tokens
from metro_t0.objectives.tally import Tally


@dataclass
class MetroOutput(ObjectiveOutput):
    """Loss and its parts; each part is a mean over its own positions, before weights.

    Attributes:
        auxiliary_loss: masked language modelling of the auxiliary model, over masked positions.
        rtd_loss: replaced token detection; 0 without a head.
        lm_loss: corrective language modelling of the decoder (gated, where the gate is on).
    """

    auxiliary_loss: torch.Tensor
    rtd_loss: torch.Tensor
    lm_loss: torch.Tensor


@dataclass(frozen=True)
class MetroObjective:
    """METRO pretraining with every axis the paper studies as a setting; the defaults are the paper's choices.

    Attributes:
        lm_positions: positions of the language modelling loss, ``masked`` or ``all``.
        rtd_positions: positions of the detection loss, ``all`` (that are not padding) or ``masked``.
        gate_lm_by_rtd: weigh each token's language modelling loss by the detached probability that it was replaced.
        lm_weight: weight of the language modelling loss.
        rtd_weight: weight of the detection loss.
        decoder_target: what the decoder writes: ``all`` tokens, or the ``masked`` ones alone (a short target, as T5's;
            no end symbol is added, so that the loss runs over the same tokens).
        sampling: sample from the forward pass that also gives the loss (``train``), or from a second one
            without dropout (``eval``).
        masking: how positions are chosen.
        vocab_size: rows of the embedding; with the next two, only ``collate`` needs it.
        num_sentinel_tokens: sentinels at the end of the vocabulary; the first is the mask token.
        pad_token_id: padding.
        seed: of masks and sampling draws.
        length_multiple: padded lengths are a multiple of it.

    Raises:
        ValueError: settings that contradict each other.
    """

    lm_positions: Literal["masked", "all"] = "masked"
    rtd_positions: Literal["all", "masked"] = "all"
    gate_lm_by_rtd: bool = False
    lm_weight: float = 1.0
    rtd_weight: float = 50.0
    decoder_target: Literal["all", "masked"] = "all"
    sampling: Literal["train", "eval"] = "train"
    masking: Masking = field(default_factory=Masking)
    vocab_size: int = 33280
    num_sentinel_tokens: int = 512
    pad_token_id: int = 1
    seed: int = 1
    length_multiple: int = LENGTH_MULTIPLE

    loss_parts = ("auxiliary_loss", "rtd_loss", "lm_loss")

    def __post_init__(self) -> None:
        for name, choices in (
            ("lm_positions", ("masked", "all")),
            ("rtd_positions", ("all", "masked")),
            ("decoder_target", ("all", "masked")),
            ("sampling", ("train", "eval")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be {choices[0]} or {choices[1]}, not {getattr(self, name)!r}")
        if self.decoder_target == "masked" and self.lm_positions == "all":
            raise ValueError(
                "decoder_target masked has no loss on other positions: set lm_positions to masked"
            )

    def collate(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> Batch:
        """Mask and pad blocks ``{"input_ids": [T]}``; masks and draws of a row are a function of (seed, key).

        Returns:
            ``original_ids``, ``masked_ids`` int64 ``[B, T]``; ``mask`` bool ``[B, T]``; ``masked_positions`` int64
            ``[B, M]``, where each row's mask is true, in order, then T, which stands for none: M is the most that rows
            of T tokens can have, so that shapes depend on B and T alone; ``draws`` float32 ``[B, M]``, one a masked
            position; and, where there is padding, ``attention_mask`` bool ``[B, T]``.
        """
        mask_id = self.vocab_size - self.num_sentinel_tokens
        originals, masked_ids, positions, draws = [], [], [], []
        for row, key in zip(rows, keys, strict=True):
            generator = row_generator(self.seed, *key)
            ids = np.asarray(row["input_ids"], dtype=np.int64)
            masked, mask = mask_tokens(ids, self.masking, generator, self.vocab_size, mask_id)
            originals.append(ids)
            masked_ids.append(masked)
            positions.append(np.flatnonzero(mask))
            draws.append(generator.random(len(positions[-1]), dtype=np.float32))
        original_ids = pad_rows(originals, self.pad_token_id, self.length_multiple)
        width = original_ids.shape[1]
        room = (len(rows), self.masking.most_masked(width))
        places, uniform = np.full(room, width, dtype=np.int64), np.zeros(room, dtype=np.float32)
        mask = np.zeros((len(rows), width), dtype=np.bool_)
        for index, (found, drawn) in enumerate(zip(positions, draws, strict=True)):
            places[index, : found.size], uniform[index, : found.size] = found, drawn
            mask[index, found] = True
        batch = {
            "original_ids": original_ids,
            "masked_ids": pad_rows(masked_ids, self.pad_token_id, self.length_multiple),
            "mask": mask,
            "masked_positions": places,
            "draws": uniform,
        }
        real = lengths_mask(np.array([ids.size for ids in originals]), width)
        if not real.all():
            batch["attention_mask"] = real
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Masked positions and tokens that are not padding."""
        return {
            "masked": int(batch["mask"].sum()),
            "tokens": int(batch["original_ids"].ne(self.pad_token_id).sum()),
        }

    def __call__(
        self, model: nn.Module, batch: Batch, normalizers: Mapping[str, float | torch.Tensor] | None = None
    ) -> MetroOutput:
        """The loss of a collated batch, through the model's own forward so that wrappers around it see the call."""
        output = model(**batch, objective=self, normalizers=normalizers)
        assert isinstance(output, MetroOutput)
        return output

    def compute(
        self,
        model: MetroT0ForPreTraining,
        batch: Mapping[str, torch.Tensor | None],
        normalizers: Mapping[str, float | torch.Tensor] | None = None,
    ) -> MetroOutput:
        """All of the step's forward passes and losses; called by the model's forward.

        Args:
            model: main model, auxiliary model and head.
            batch: ``original_ids``, ``masked_ids``, ``mask`` ``[B, T]``; what else ``collate`` gives, where it is
                known; and, in place of sampling, ``replaced_ids`` ``[B, T]``.
            normalizers: counts ``masked`` and ``tokens`` to divide by; this batch's own by default.

        Raises:
            ValueError: a setting that needs a part that the model does not have.
        """
        step = _run_models(self, model, batch)
        if normalizers is None:
            normalizers = {"masked": step.text.counted.sum(), "tokens": step.text.real.sum()}
        return _losses(self, model, step, normalizers)

    def inspect(self, model: nn.Module, batch: Batch) -> Inspection:
        """What the models make of a collated batch, token by token; through the model's own forward, as a loss.

        To be called without gradients and in evaluation mode.
        """
        inspection = model(**batch, objective=_Inspecting(self))
        assert isinstance(inspection, Inspection)
        return inspection

    def reads_whole_decoder(self, model: MetroT0ForPreTraining) -> bool:
        """Whether anything is computed from decoder states of positions that are not masked."""
        if self.lm_positions == "all" or not torch.is_grad_enabled():
            return True
        at_decoder = model.rtd_head is not None and model.config.rtd_location == "decoder"
        return at_decoder and self.rtd_positions == "all"

    def check_model(self, model: MetroT0ForPreTraining) -> None:
        """Refuse a model that lacks what the settings need.

        Raises:
            ValueError: a setting that needs a part that the model does not have.
        """
        if model.rtd_head is None and (self.gate_lm_by_rtd or self.rtd_weight != 0.0):
            raise ValueError(
                "this model has no replaced token detection head (rtd_head: none): set rtd_weight to 0 and "
                "gate_lm_by_rtd to false, or give the model a head"
            )
        on_short_decoder = self.decoder_target == "masked" and model.config.rtd_location == "decoder"
        if model.rtd_head is not None and on_short_decoder and self.rtd_positions == "all":
            raise ValueError(
                "a detection head on a decoder whose target is masked sees masked positions only: set "
                "rtd_positions to masked"
            )


@dataclass(frozen=True)
class _Inspecting:
    """Takes the objective's place in the model's forward where what was done is wanted and no loss is."""

    objective: MetroObjective

    def compute(
        self, model: MetroT0ForPreTraining, batch: Mapping[str, torch.Tensor | None], normalizers: None = None
    ) -> Inspection:
        assert not torch.is_grad_enabled(), "with gradients the decoder may give masked positions alone"
        step = _run_models(self.objective, model, batch)
        return _inspection(model, step)


@dataclass(frozen=True)
class _Text:
    """The step's text.

    Attributes:
        original: ids ``[B, T]``.
        mask: bool ``[B, T]``.
        real: bool ``[B, T]``, what is not padding.
        attention_mask: the same, or None where nothing is padding.
        positions: ``[B, M]``, each row's masked positions in order, then T for none.
    """

    original: torch.Tensor
    mask: torch.Tensor
    real: torch.Tensor
    attention_mask: torch.Tensor | None
    positions: torch.Tensor

    @property
    def counted(self) -> torch.Tensor:
        """Bool ``[B, M]``: which of ``positions`` are positions."""
        return self.positions < self.original.shape[1]

    @property
    def index(self) -> torch.Tensor:
        """``positions`` as an index ``[B, M]`` inside the row; what stands for none repeats the row's last one."""
        last = self.positions.masked_fill(~self.counted, 0).amax(dim=1, keepdim=True)
        return self.positions.minimum(last)

    def at_masked(self, values: torch.Tensor) -> torch.Tensor:
        """``[B, T]`` to ``[B, M]``."""
        return values.gather(1, self.index)

    def mask_of(self, corrupted: torch.Tensor, padding: int) -> torch.Tensor | None:
        """The main encoder's attention mask: a sampled padding token counts as padding, as in the official encoder.

        Only on a GPU and in a batch without padding it counts as a token like any other: to look for one would make
        the host wait, and a mask beside the relative bias would be as large as all attention scores.
        """
        on_cpu = corrupted.device.type == "cpu"
        if self.attention_mask is None and not on_cpu:
            return None
        real = corrupted.ne(padding)
        return None if on_cpu and bool(real.all()) else real

    def with_replacements(self, masked: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        """Ids ``[B, T]`` with samples ``[B * M]`` in the masked positions."""
        room = F.pad(masked, (0, 1))  # where what stands for no position is written
        return room.scatter(1, self.positions, samples.view_as(self.positions))[:, :-1]


@dataclass(frozen=True)
class _MainStates:
    """What the main model gives.

    Attributes:
        decoder: ``[B, T, D]``, or ``[B, M, D]`` at the masked positions alone.
        decoder_at_masked: which of the two.
        detection: logits at the same positions as the stack they come from, ``[B, T]`` or ``[B, M]``, or None.
        detection_at_masked: which of the two.
    """

    decoder: torch.Tensor
    decoder_at_masked: bool
    detection: torch.Tensor | None
    detection_at_masked: bool


@dataclass(frozen=True)
class _Step:
    """All forward passes of a batch.

    Attributes:
        text: as it was.
        corrupted: ids ``[B, T]``, what the main encoder read.
        replaced: detection labels, bool ``[B, T]``; a sample equal to the original is not replaced.
        auxiliary: scores of the auxiliary model at masked positions, ``[B * M]``.
        states: what the main model made of it.
    """

    text: _Text
    corrupted: torch.Tensor
    replaced: torch.Tensor
    auxiliary: TokenScores
    states: _MainStates


def _run_models(
    objective: MetroObjective, model: MetroT0ForPreTraining, batch: Mapping[str, torch.Tensor | None]
) -> _Step:
    objective.check_model(model)
    original, masked, mask = batch["original_ids"], batch["masked_ids"], batch["mask"]
    assert original is not None and masked is not None and mask is not None
    real = original.ne(model.config.pad_token_id)
    positions, attention_mask = batch.get("masked_positions"), batch.get("attention_mask")
    if positions is None:
        positions = _positions_of(mask)
        attention_mask = None if real.device.type == "cpu" and bool(real.all()) else real
    text = _Text(original, mask, real, attention_mask, positions)
    draws, corrupted = batch.get("draws"), batch.get("replaced_ids")
    if draws is None and corrupted is None:
        draws = torch.rand(positions.shape, device=positions.device)
    auxiliary = _auxiliary_scores(objective, model, masked, text, draws if corrupted is None else None)
    if corrupted is None:
        assert auxiliary.samples is not None
        corrupted = text.with_replacements(masked, auxiliary.samples)
    replaced = corrupted.ne(original) & real
    return _Step(text, corrupted, replaced, auxiliary, _run_main_model(objective, model, text, corrupted))


def _positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Each row's true positions in order, then T, as ``[B, most a row has]``; waits for the device."""
    length = mask.shape[1]
    most = max(1, int(mask.sum(dim=1).max())) if len(mask) else 1
    places = torch.arange(length, device=mask.device).masked_fill(~mask, length)
    return places.sort(dim=1).values[:, :most]


def _auxiliary_scores(
    objective: MetroObjective,
    model: MetroT0ForPreTraining,
    masked: torch.Tensor,
    text: _Text,
    draws: torch.Tensor | None,
) -> TokenScores:
    """Losses ``[B * M]`` of the auxiliary model and, where there are draws, its samples."""
    targets = text.at_masked(text.original).flatten()
    draws = None if draws is None else draws.flatten()
    separately = draws is not None and objective.sampling == "eval"
    scores = score_tokens(_auxiliary_logits(model, masked, text), targets, None if separately else draws)
    if separately:
        assert draws is not None
        scores = replace(scores, samples=sample_rows(_logits_without_dropout(model, masked, text), draws))
    return scores


def _auxiliary_logits(model: MetroT0ForPreTraining, masked: torch.Tensor, text: _Text) -> torch.Tensor:
    states = model.auxiliary.encoder(masked, text.attention_mask, positions=text.index).last_hidden_state
    return model.auxiliary.project(states.flatten(0, 1))


@torch.no_grad()
def _logits_without_dropout(model: MetroT0ForPreTraining, masked: torch.Tensor, text: _Text) -> torch.Tensor:
    was_training = model.auxiliary.training
    model.auxiliary.eval()
    try:
        return _auxiliary_logits(model, masked, text)
    finally:
        model.auxiliary.train(was_training)


def _shift_right(ids: torch.Tensor, start: int) -> torch.Tensor:
    return torch.cat([ids.new_full((len(ids), 1), start), ids[:, :-1]], dim=1)


def _run_main_model(
    objective: MetroObjective, model: MetroT0ForPreTraining, text: _Text, corrupted: torch.Tensor
) -> _MainStates:
    attention_mask = text.mask_of(corrupted, model.config.pad_token_id)
    encoded = model.encoder(corrupted, attention_mask).last_hidden_state
    at_encoder = model.config.rtd_location == "encoder"
    target, positions, at_masked = text.original, None, objective.decoder_target == "masked"
    if at_masked:
        target = text.at_masked(text.original).masked_fill(~text.counted, model.config.pad_token_id)
    elif not objective.reads_whole_decoder(model):
        positions, at_masked = text.index, True
    decoded = model.decoder(
        input_ids=_shift_right(target, model.config.mask_token_id),
        encoder_hidden_states=encoded,
        encoder_attention_mask=attention_mask,
        positions=positions,
    ).last_hidden_state
    detection = None
    if model.rtd_head is not None:
        detection = model.rtd_head(encoded if at_encoder else decoded)
    return _MainStates(decoded, at_masked, detection, at_masked and not at_encoder)


def _losses(
    objective: MetroObjective,
    model: MetroT0ForPreTraining,
    step: _Step,
    normalizers: Mapping[str, float | torch.Tensor],
) -> MetroOutput:
    tally, text = Tally(normalizers), step.text
    counted = text.counted.flatten()
    auxiliary_loss = tally.part("auxiliary_loss", step.auxiliary.losses, counted, "masked")
    tally.share("auxiliary_accuracy", step.auxiliary.hits, counted)
    tally.share("replace_ratio", step.replaced, text.real)
    rtd_loss = _detection_loss(objective, step, tally)
    if rtd_loss is None:
        rtd_loss = torch.zeros_like(auxiliary_loss, requires_grad=False)
    lm_loss = _language_modelling_loss(objective, model, step, tally)
    loss = auxiliary_loss + objective.lm_weight * lm_loss + objective.rtd_weight * rtd_loss
    return MetroOutput(loss, tally.totals, auxiliary_loss, rtd_loss, lm_loss)


def _detection_loss(objective: MetroObjective, step: _Step, tally: Tally) -> torch.Tensor | None:
    logits, text, replaced = step.states.detection, step.text, step.replaced
    if logits is None:
        return None
    counted, kind = text.real, "tokens"
    if objective.rtd_positions == "masked":
        logits = logits if step.states.detection_at_masked else text.at_masked(logits)
        replaced, counted, kind = text.at_masked(replaced), text.counted, "masked"
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    says_replaced = logits >= 0
    tally.share("rtd_recall", says_replaced, replaced & counted)
    tally.share("rtd_precision", replaced, says_replaced & counted)
    tally.share("rtd_specificity", ~says_replaced, ~replaced & counted)
    if not torch.is_grad_enabled():
        # Thirty numbers, which would crowd every training line; validation's say the same.
        tally.totals.update(calibration_totals(logits, replaced, counted))
    losses = F.binary_cross_entropy_with_logits(logits, replaced.to(logits.dtype), reduction="none")
    return tally.part("rtd_loss", losses, counted, kind)


def _language_modelling_loss(
    objective: MetroObjective, model: MetroT0ForPreTraining, step: _Step, tally: Tally
) -> torch.Tensor:
    text, states, replaced = step.text, step.states, step.replaced
    if objective.lm_positions == "all":
        hidden, targets, counted, masked = states.decoder, text.original, text.real, text.mask
    else:
        hidden = _decoder_at_masked(step)
        targets, replaced = text.at_masked(text.original), text.at_masked(replaced)
        counted = masked = text.counted
    scores = score_tokens(model.project(hidden.flatten(0, 1)), targets.flatten())
    losses, hits = scores.losses.view_as(counted), scores.hits.view_as(counted)
    for name, among in (("replaced", replaced & counted), ("kept", masked & ~replaced)):
        tally.mean(f"lm_loss_{name}", losses, among)
        tally.share(f"lm_accuracy_{name}", hits, among)
    if objective.gate_lm_by_rtd:
        assert states.detection is not None
        gate = states.detection.detach().to(losses.dtype).sigmoid()
        at_all = objective.lm_positions == "all" or states.detection_at_masked
        losses = losses * (gate if at_all else text.at_masked(gate))
    if not torch.is_grad_enabled() and not states.decoder_at_masked:
        # The official all-position accuracy needs the full projection, so it is for validation alone.
        predicted = model.project(states.decoder).argmax(dim=-1)
        tally.share("lm_accuracy_all", predicted.eq(text.original), text.real)
    kind = "tokens" if objective.lm_positions == "all" else "masked"
    return tally.part("lm_loss", losses, counted, kind)


def _decoder_at_masked(step: _Step) -> torch.Tensor:
    """``[B, M, D]``."""
    states = step.states
    return states.decoder if states.decoder_at_masked else at_positions(states.decoder, step.text.index)


def _inspection(model: MetroT0ForPreTraining, step: _Step) -> Inspection:
    text, states = step.text, step.states
    restored = model.project(_decoder_at_masked(step).flatten(0, 1)).argmax(dim=-1)
    detection = torch.full(text.original.shape, torch.nan, device=text.original.device)
    if states.detection is not None:
        probabilities = states.detection.float().sigmoid()
        if states.detection_at_masked:
            room = F.pad(detection, (0, 1))
            detection = room.scatter(1, text.positions, probabilities)[:, :-1]
        else:
            detection = probabilities
    return Inspection(
        original=text.original,
        real=text.real,
        masked=text.mask,
        corrupted=step.corrupted,
        detection=detection,
        restored=text.with_replacements(text.original, restored),
    )
