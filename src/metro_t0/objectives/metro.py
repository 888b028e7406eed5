"""The METRO objective: an auxiliary model's samples corrupt the text, the main model detects and corrects them.

One step (paper section 3; official ``models/t5_metro/model.py`` and ``criterions/t5_metro.py``): the auxiliary model
predicts the masked tokens; its samples replace them; the main encoder reads the corrupted text, the detection head
tells replaced from original tokens; the decoder, fed with the clean text, writes the original back.

>>> objective = MetroObjective(lm_positions="masked", rtd_positions="all", rtd_weight=50.0)
>>> output = pretrainer(original_ids=..., masked_ids=..., mask=..., objective=objective)

Shapes: B batch, T length, N masked positions, V vocabulary. Sums are divided by counts given as normalizers, so that
micro-batches and processes add up to the same step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.base import Batch, ObjectiveOutput, Row, RowKey
from metro_t0.objectives.masking import Masking, mask_tokens, row_generator
from metro_t0.objectives.padding import pad_rows


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


def sample_rows(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """One token a row from softmax(logits) in float32, by its cumulative sum and one uniform number a row.

    Args:
        logits: ``[N, V]``.
        draws: ``[N]`` in [0, 1).

    Returns:
        Token ids ``[N]``.
    """
    cumulative = logits.float().softmax(dim=-1).cumsum(dim=-1)
    # The last sum is 1 only up to rounding; scaling the draw by it keeps every row inside the vocabulary.
    thresholds = draws.float().unsqueeze(1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, thresholds, right=True).squeeze(1)
    return tokens.clamp(max=logits.shape[1] - 1)


def select_positions(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows of ``[B, T, ...]`` at flat positions ``[N]``: ``[N, ...]``."""
    return states.flatten(0, 1).index_select(0, positions)


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
            ``original_ids``, ``masked_ids`` int64 ``[B, T]``, ``mask`` bool ``[B, T]``, ``masked_positions`` int64
            ``[N]`` (where the mask is true in the flattened batch) and ``draws`` float32 ``[N]``, one a masked
            position.
        """
        mask_id = self.vocab_size - self.num_sentinel_tokens
        originals, masked_ids, masks, draws = [], [], [], []
        for row, key in zip(rows, keys, strict=True):
            generator = row_generator(self.seed, *key)
            ids = np.asarray(row["input_ids"], dtype=np.int64)
            masked, mask = mask_tokens(ids, self.masking, generator, self.vocab_size, mask_id)
            originals.append(ids)
            masked_ids.append(masked)
            masks.append(mask.astype(np.int64))
            draws.append(generator.random(int(mask.sum()), dtype=np.float32))
        mask = pad_rows(masks, 0).astype(bool)
        return {
            "original_ids": torch.from_numpy(pad_rows(originals, self.pad_token_id)),
            "masked_ids": torch.from_numpy(pad_rows(masked_ids, self.pad_token_id)),
            "mask": torch.from_numpy(mask),
            "masked_positions": torch.from_numpy(np.flatnonzero(mask)),
            "draws": torch.from_numpy(np.concatenate(draws)),
        }

    def counts(self, batch: Batch) -> dict[str, int]:
        """Masked positions and tokens that are not padding."""
        return {
            "masked": batch["masked_positions"].numel(),
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
            batch: ``original_ids``, ``masked_ids``, ``mask`` ``[B, T]``; where they are known, ``masked_positions``
                ``[N]``, ``draws`` ``[N]`` and, in place of sampling, ``replaced_ids`` ``[B, T]``.
            normalizers: counts ``masked`` and ``tokens`` to divide by; this batch's own by default.

        Raises:
            ValueError: a setting that needs a part that the model does not have.
        """
        self._check_model(model)
        original, masked, mask = batch["original_ids"], batch["masked_ids"], batch["mask"]
        assert original is not None and masked is not None and mask is not None
        positions = batch.get("masked_positions")
        if positions is None:
            positions = mask.flatten().nonzero().squeeze(1)
        auxiliary_logits = _auxiliary_logits(model, masked, positions)
        corrupted = batch.get("replaced_ids")
        if corrupted is None:
            sampling_logits = auxiliary_logits
            if self.sampling == "eval":
                sampling_logits = _logits_without_dropout(model, masked, positions)
            corrupted = _replace(masked, positions, sampling_logits.detach(), batch.get("draws"))
        text = _Text(original, corrupted, mask, positions, original.ne(model.config.pad_token_id))
        states = _run_main_model(model, text, self.decoder_target)
        if normalizers is None:
            normalizers = {"masked": len(positions), "tokens": text.real.sum()}
        return _losses(self, model, text, auxiliary_logits, states, normalizers)

    def _check_model(self, model: MetroT0ForPreTraining) -> None:
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
class _Text:
    """The step's text ``[B, T]``, the flat masked positions ``[N]`` in row-major order, and what is not padding."""

    original: torch.Tensor
    corrupted: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    real: torch.Tensor

    @property
    def replaced(self) -> torch.Tensor:
        """Detection labels: True where the corrupted text differs; a sample equal to the original does not."""
        return self.corrupted.ne(self.original) & self.real

    @property
    def real_positions(self) -> torch.Tensor:
        return self.real.flatten().nonzero().squeeze(1)


@dataclass(frozen=True)
class _MainStates:
    """Decoder states; where its predictions of the masked tokens lie in them; detection logits.

    ``detection_logits`` is ``[B, T]``, or ``[N]`` when only masked positions have one, or None.
    """

    decoder: torch.Tensor
    masked_positions: torch.Tensor
    detection_logits: torch.Tensor | None


def _attention_mask(ids: torch.Tensor, padding: int) -> torch.Tensor | None:
    """Mask of ids that are not padding; None where a look costs nothing and finds no padding."""
    real = ids.ne(padding)
    return None if ids.device.type == "cpu" and bool(real.all()) else real


def _auxiliary_logits(
    model: MetroT0ForPreTraining, masked: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    attention_mask = _attention_mask(masked, model.config.pad_token_id)
    states = model.auxiliary.encoder(masked, attention_mask).last_hidden_state
    return model.auxiliary.project(select_positions(states, positions))


@torch.no_grad()
def _logits_without_dropout(
    model: MetroT0ForPreTraining, masked: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    was_training = model.auxiliary.training
    model.auxiliary.eval()
    try:
        return _auxiliary_logits(model, masked, positions)
    finally:
        model.auxiliary.train(was_training)


@torch.no_grad()
def _replace(
    masked: torch.Tensor, positions: torch.Tensor, logits: torch.Tensor, draws: torch.Tensor | None
) -> torch.Tensor:
    if draws is None:
        draws = torch.rand(len(positions), device=logits.device)
    return masked.flatten().scatter(0, positions, sample_rows(logits, draws)).view_as(masked)


def _shift_right(ids: torch.Tensor, start: int) -> torch.Tensor:
    return torch.cat([ids.new_full((len(ids), 1), start), ids[:, :-1]], dim=1)


def _run_main_model(model: MetroT0ForPreTraining, text: _Text, decoder_target: str) -> _MainStates:
    padding = model.config.pad_token_id
    # From the corrupted ids, as the official encoder does: a sampled padding token counts as padding.
    attention_mask = _attention_mask(text.corrupted, padding)
    encoded = model.encoder(text.corrupted, attention_mask).last_hidden_state
    target, positions = text.original, text.positions
    if decoder_target == "masked":
        target, positions = _masked_tokens_only(text, padding)
    decoded = model.decoder(
        input_ids=_shift_right(target, model.config.mask_token_id),
        encoder_hidden_states=encoded,
        encoder_attention_mask=attention_mask,
    ).last_hidden_state
    detection_logits = None
    if model.rtd_head is not None:
        if model.config.rtd_location == "encoder":
            detection_logits = model.rtd_head(encoded)
        elif decoder_target == "all":
            detection_logits = model.rtd_head(decoded)
        else:
            detection_logits = model.rtd_head(select_positions(decoded, positions))
    return _MainStates(decoded, positions, detection_logits)


def _masked_tokens_only(text: _Text, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's masked tokens in order, padded: ``[B, M]``, and where they lie in it, flat: ``[N]``."""
    mask = text.mask
    longest = max(int(mask.sum(dim=1).max()), 1)
    row_starts = torch.arange(len(mask), device=mask.device).unsqueeze(1) * longest
    places = select_positions(row_starts + mask.cumsum(dim=1) - 1, text.positions)
    target = text.original.new_full((len(mask) * longest,), padding)
    target = target.scatter(0, places, text.original.flatten()[text.positions])
    return target.view(len(mask), longest), places


def _losses(
    objective: MetroObjective,
    model: MetroT0ForPreTraining,
    text: _Text,
    auxiliary_logits: torch.Tensor,
    states: _MainStates,
    normalizers: Mapping[str, float | torch.Tensor],
) -> MetroOutput:
    tally = _Tally(normalizers)
    targets = text.original.flatten()[text.positions]
    auxiliary_sum = F.cross_entropy(auxiliary_logits.float(), targets, reduction="sum")
    auxiliary_loss = tally.part("auxiliary_loss", auxiliary_sum, "masked", len(targets))
    with torch.no_grad():
        hits = auxiliary_logits.argmax(dim=-1).eq(targets)
        tally.share("auxiliary_accuracy", hits, torch.ones_like(hits))
        tally.share("replace_ratio", text.replaced, text.real)
    rtd_loss = _detection_loss(objective, text, states, tally)
    if rtd_loss is None:
        rtd_loss = torch.zeros_like(auxiliary_loss, requires_grad=False)
    lm_loss = _language_modelling_loss(objective, model, text, states, tally)
    loss = auxiliary_loss + objective.lm_weight * lm_loss + objective.rtd_weight * rtd_loss
    return MetroOutput(loss, tally.totals, auxiliary_loss, rtd_loss, lm_loss)


def _detection_loss(
    objective: MetroObjective, text: _Text, states: _MainStates, tally: _Tally
) -> torch.Tensor | None:
    if states.detection_logits is None:
        return None
    logits = states.detection_logits.float().flatten()
    labels, counted, kind = text.replaced.flatten(), text.real.flatten(), "tokens"
    if objective.rtd_positions == "masked":
        if logits.numel() != len(text.positions) or states.detection_logits.dim() == 2:
            logits = logits[text.positions]
        labels = labels[text.positions]
        counted, kind = torch.ones_like(labels), "masked"
    with torch.no_grad():
        says_replaced = logits >= 0
        tally.share("rtd_recall", says_replaced & labels, labels)
        tally.share("rtd_specificity", ~says_replaced & ~labels & counted, ~labels & counted)
    elementwise = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    return tally.part("rtd_loss", (elementwise * counted).sum(), kind, counted.sum())


def _language_modelling_loss(
    objective: MetroObjective, model: MetroT0ForPreTraining, text: _Text, states: _MainStates, tally: _Tally
) -> torch.Tensor:
    everywhere = objective.lm_positions == "all"
    places = text.real_positions if everywhere else states.masked_positions
    positions = places if everywhere else text.positions
    targets = text.original.flatten()[positions]
    logits = model.project(select_positions(states.decoder, places))
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    if objective.gate_lm_by_rtd:
        assert states.detection_logits is not None
        gate = states.detection_logits.detach().float().sigmoid().flatten()
        losses = losses * (gate[positions] if states.detection_logits.dim() == 2 else gate)
    with torch.no_grad():
        hits = logits.argmax(dim=-1).eq(targets)
        replaced = text.replaced.flatten()[positions]
        kept = text.mask.flatten()[positions] & ~replaced
        tally.share("lm_accuracy_replaced", hits & replaced, replaced)
        tally.share("lm_accuracy_kept", hits & kept, kept)
    if not torch.is_grad_enabled() and objective.decoder_target == "all":
        # The official all-position accuracy needs the full projection, so it is for validation alone.
        predicted = model.project(select_positions(states.decoder, text.real_positions)).argmax(dim=-1)
        hits = predicted.eq(text.original.flatten()[text.real_positions])
        tally.share("lm_accuracy_all", hits, torch.ones_like(hits))
    return tally.part("lm_loss", losses.sum(), "tokens" if everywhere else "masked", len(targets))


class _Tally:
    """Divides sums by the step's counts and keeps them as totals."""

    def __init__(self, normalizers: Mapping[str, float | torch.Tensor]) -> None:
        self.totals: dict[str, torch.Tensor] = {}
        self._normalizers = normalizers

    def part(self, name: str, total: torch.Tensor, kind: str, count: int | torch.Tensor) -> torch.Tensor:
        """Keep a loss part's sum over ``count`` positions; return it divided by the step's count of that kind."""
        counted = torch.as_tensor(count, dtype=torch.float32, device=total.device)
        self.totals[name] = torch.stack([total.detach().float(), counted])
        normalizer = self._normalizers[kind]
        if isinstance(normalizer, torch.Tensor):
            return total / normalizer.clamp(min=1)
        return total / max(normalizer, 1)

    def share(self, name: str, hits: torch.Tensor, among: torch.Tensor) -> None:
        """Keep how many of the positions ``among`` are hits."""
        self.totals[name] = torch.stack([hits.sum(), among.sum()]).float()
