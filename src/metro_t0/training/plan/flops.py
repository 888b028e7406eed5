"""Floating-point operations of training a token, by part: the numerator of model FLOPs utilisation (MFU).

    flops = flops_per_token(MetroT0Config(vocab_size=33280), MetroSettings(), length=512)
    flops.forward, flops.training                        # 532e6 and 1.6e9 for base
    mfu = flops.training * tokens_per_second / (peak_flops_per_second * processes)

What counts is the mathematics of the recipe, not what a program executes: matrix products only, two operations a
multiplication and addition; attention over all keys (the causal half is not discounted); vocabulary projections where
a loss is and nowhere else; the backward pass twice the forward pass; no recomputation for activation checkpointing, and
no discount where a program leaves out rows of a last layer that no loss reads. A cleverer program so shows as a higher
utilisation, a wasteful one as a lower.

Shapes below: d width, f feed-forward width, V vocabulary, S source (encoder) length, T target (decoder) length.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from metro_t0.config import MetroSettings, PromptedSettings, SpanCorruptionSettings
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.objectives.span_corruption import SpanCorruption, corrupt_spans

ObjectiveSettings = MetroSettings | SpanCorruptionSettings | PromptedSettings

_ROWS_DRAWN = 256
"""Rows of span corruption whose mean lengths stand for all: 0.2 tokens of 95 is their standard error."""


@dataclass(frozen=True)
class FlopsPerToken:
    """Operations of one forward pass, divided by the tokens that a run counts.

    Those are the tokens of a block (METRO and span corruption) or of prompt and answer together (prompted).
    """

    auxiliary_layers: float
    auxiliary_attention: float
    auxiliary_head: float
    encoder_layers: float
    encoder_attention: float
    decoder_layers: float
    decoder_attention: float
    cross_attention: float
    detection_head: float
    language_model_head: float

    @property
    def parts(self) -> dict[str, float]:
        """Every part by its name; their sum is ``forward``."""
        return asdict(self)

    @property
    def forward(self) -> float:
        """All parts of one forward pass."""
        return sum(self.parts.values())

    @property
    def layers(self) -> float:
        """The layers' share of ``forward``, which activation checkpointing runs once more."""
        return self.forward - self.auxiliary_head - self.detection_head - self.language_model_head

    @property
    def training(self) -> float:
        """Forward and backward pass: three times ``forward``."""
        return 3.0 * self.forward


@dataclass(frozen=True)
class RowShape:
    """A row as the networks see it, in tokens; fractions are means.

    Attributes:
        tokens: what the run counts.
        source, target: the main encoder's and the decoder's.
        auxiliary_heads, language_model: positions that are projected onto the vocabulary.
    """

    tokens: float
    source: float
    target: float
    auxiliary_heads: float
    language_model: float


def row_shape(objective: ObjectiveSettings, length: float = 512, target_length: float = 16) -> RowShape:
    """What an objective makes of a row.

    Args:
        objective: settings of a run.
        length: tokens of a block, or of a prompt. For rows of unequal lengths l the sum of l² over the sum of l, how
            many keys a token attends to, gives the exact cost of attention (padding left out).
        target_length: tokens of an answer; prompted only.
    """
    if isinstance(objective, PromptedSettings):
        return RowShape(length + target_length, length, target_length, 0.0, target_length)
    if isinstance(objective, SpanCorruptionSettings):
        source, target = span_corruption_lengths(objective, round(length))
        return RowShape(length, source, target, 0.0, target)
    masked = objective.masking.probability * length
    target = masked if objective.decoder_target == "masked" else length
    return RowShape(length, length, target, masked, length if objective.lm_positions == "all" else masked)


def span_corruption_lengths(objective: SpanCorruptionSettings, length: int) -> tuple[float, float]:
    """Mean tokens of source and target that span corruption makes of a block; 474 and 95 of 512 in the recipe."""
    settings = SpanCorruption(**objective.model_dump(exclude={"kind"}))
    rng = np.random.default_rng(0)
    block = np.zeros(length, dtype=np.int64)
    vocabulary = {"vocab_size": 2 * length + 2, "num_sentinel_tokens": 2 * length + 1}
    pairs = [corrupt_spans(block, settings, rng, **vocabulary) for _ in range(_ROWS_DRAWN)]
    source, target = (float(np.mean([side.size for side in sides])) for sides in zip(*pairs, strict=True))
    return source, target


def flops_per_token(
    network: MetroT0Config, objective: ObjectiveSettings, length: float = 512, target_length: float = 16
) -> FlopsPerToken:
    """Operations a token of one forward pass, by part; see the module's first lines for what counts.

    Args:
        network: shape, ``vocab_size`` included.
        objective: settings of the run.
        length, target_length: of a row, as ``row_shape`` takes them.
    """
    row = row_shape(objective, length, target_length)
    d, f, vocabulary = network.d_model, network.d_ff, network.vocab_size
    feed_forward = 2 * 2 * d * f
    encoder_layer = 2 * 4 * d * d + feed_forward
    # Cross-attention projects queries and outputs for every target token, keys and values for every source token.
    decoder_layer = row.target * (2 * 6 * d * d + feed_forward) + row.source * 2 * 2 * d * d
    metro = isinstance(objective, MetroSettings)
    auxiliary_layers = network.num_auxiliary_layers if metro else 0

    def attention(queries: float, keys: float) -> float:
        return 4 * d * queries * keys

    detection = {"none": 0, "simple": 2 * d, "roberta": 2 * d * d + 2 * d}[network.rtd_head] if metro else 0
    detected = row.target if network.rtd_location == "decoder" else row.source
    of_a_row = {
        "auxiliary_layers": auxiliary_layers * row.source * encoder_layer,
        "auxiliary_attention": auxiliary_layers * attention(row.source, row.source),
        "auxiliary_head": row.auxiliary_heads * 2 * (d * d + d * vocabulary),
        "encoder_layers": network.num_layers * row.source * encoder_layer,
        "encoder_attention": network.num_layers * attention(row.source, row.source),
        "decoder_layers": network.num_decoder_layers * decoder_layer,
        "decoder_attention": network.num_decoder_layers * attention(row.target, row.target),
        "cross_attention": network.num_decoder_layers * attention(row.target, row.source),
        "detection_head": detected * detection,
        "language_model_head": row.language_model * 2 * d * vocabulary,
    }
    return FlopsPerToken(**{part: operations / row.tokens for part, operations in of_a_row.items()})
