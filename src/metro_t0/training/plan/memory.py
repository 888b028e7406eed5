"""Memory of a training step, by part: what a device must hold before anything runs.

    memory = step_memory(network, counts, objective, Hardware("cuda", "bf16"), rows=16)
    memory.parts, memory.total                            # bytes a device

Weights, gradients and both moments are float32: 16 bytes a parameter. In bf16, autocast adds a bfloat16 copy of every
matrix for as long as a backward pass may want it. Activations are what autograd saves, counted layer by layer from the
operations as they stand in ``modeling/``; the peak is the larger of three moments: the end of the forward pass, the
backward pass of the vocabulary projection, and that of the last layer. Gradients are counted as if a step had several
micro-batches: from the second on they are there when the forward pass begins.

What follows from the implementation and not from the mathematics (how many bytes are kept for a score, a dropout mask,
the input of a linear layer) is in ``Hardware``, so that a faster kernel changes one place.

Shapes: d width, f feed-forward width, H heads, V vocabulary, S source and T target length of a row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from metro_t0.config import MetroSettings
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.training.plan.flops import ObjectiveSettings, RowShape

FLOAT32 = 4
ADAM_MOMENTS = 2
_STATISTICS = 2 * FLOAT32
"""Mean and deviation that a LayerNorm keeps of a position."""
_INDICES = 2 * 8
"""Token and position of a position, as the embeddings keep them."""


@dataclass(frozen=True)
class Hardware:
    """How the networks compute on a kind of device, as far as memory depends on it.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: of matrix products.
    """

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]

    @property
    def element(self) -> int:
        """Bytes of what goes into and comes out of a matrix product."""
        return 2 if self.precision == "bf16" else FLOAT32

    def linear_inputs(self, readers: int, own: bool = True) -> int:
        """Bytes kept of one number that several linear layers read.

        Autocast casts it for each of them anew; in float32 they keep the number itself, which the layer before has
        to hold anyway where it is not ``own``.
        """
        return readers * self.element if self.precision == "bf16" else FLOAT32 * own

    def dropout_mask(self, element: int, rate: float) -> int:
        """Bytes kept of an entry's mask: as wide as the entry on a CPU, a byte on a GPU."""
        if rate == 0.0:
            return 0
        return element if self.device == "cpu" else 1

    def score(self, relative_bias: bool, rate: float) -> int:
        """Bytes kept of one attention score, a (head, query, key).

        On a GPU attention is fused and keeps none, but its additive bias, filled with the row's padding, where it has
        one. On a CPU with a bias the softmax is kept in float32, then the dropout mask and what is left, or else the
        cast; without a bias the fused kernel keeps none unless dropout has it fall back to plain products in float32.
        """
        if self.device == "cuda":
            return self.element if relative_bias else 0
        if relative_bias:
            cast = self.element if self.precision == "bf16" else 0
            return FLOAT32 + (2 * self.element if rate else cast)
        return 3 * FLOAT32 if rate else 0

    def head_input(self, relative_bias: bool, rate: float) -> int:
        """Bytes of a number of the queries, keys and values that attention keeps."""
        falls_back = self.device == "cpu" and not relative_bias and rate > 0
        return FLOAT32 if falls_back else self.element

    def score_gradients(self, relative_bias: bool, rate: float) -> int:
        """Bytes that a score takes for a moment in the backward pass."""
        if self.score(relative_bias, rate) == 0 or self.device == "cuda":
            return self.score(relative_bias, rate)
        return 2 * FLOAT32 + self.element


@dataclass(frozen=True)
class ParameterCounts:
    """Trained parameters, each tied one once.

    Attributes:
        total: all of them.
        main: those of the model that is kept after pretraining.
        matrices: those that matrix products read, which autocast copies.
        largest_layer: those of the largest layer.
        outside_layers: those of embeddings and heads.
    """

    total: int
    main: int
    matrices: int
    largest_layer: int
    outside_layers: int


@dataclass(frozen=True)
class StepMemory:
    """Bytes a device holds at the peak of a training step."""

    weights: float
    gradients: float
    optimizer: float
    weight_copies: float
    activations: float
    transient: float

    @property
    def parts(self) -> dict[str, float]:
        """Every part by its name."""
        return asdict(self)

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class _Kept:
    """Bytes that a row keeps, and what its layers and its head take beside it for a moment."""

    layers: float
    outside: float
    boundaries: float
    largest_layer: float
    head: float
    layer_gradients: float
    head_gradients: float


def step_memory(
    network: MetroT0Config,
    counts: ParameterCounts,
    objective: ObjectiveSettings,
    hardware: Hardware,
    row: RowShape,
    rows: float,
    *,
    checkpointing: bool = False,
    shards: int = 1,
) -> StepMemory:
    """Memory of one device in a step of micro-batches of so many rows.

    Args:
        network: shape, ``vocab_size`` included.
        counts: its parameters.
        objective: settings of the run.
        hardware: how it computes.
        row: one row's lengths.
        rows: of a micro-batch.
        checkpointing: layers keep their input and recompute the rest.
        shards: devices that weights, gradients and moments are spread over (FSDP); the layer at work and the next
            one, embeddings and heads are then held whole beside the shards.
    """
    kept = _kept_of_a_row(network, objective, hardware, row)
    held = counts.total / shards * FLOAT32
    whole = 0.0
    if shards > 1:
        whole = (counts.outside_layers + 2 * counts.largest_layer) * FLOAT32
    copies = counts.matrices * 2.0 if hardware.precision == "bf16" else 0.0
    layers, layer_copies = kept.layers, copies
    recomputed = 0.0
    if checkpointing:
        layers, recomputed = kept.boundaries, kept.largest_layer
        layer_copies = 0.0 if copies == 0.0 else (counts.outside_layers + counts.largest_layer) * 2.0
    saved = layers + kept.outside
    # Of each moment: what is saved, copies of weights, and what is there for the moment only, all by row but copies.
    moments = [
        (saved, copies, kept.head_gradients),
        (saved - kept.head + recomputed, layer_copies, kept.layer_gradients),
    ]
    activations, copies, transient = max(
        moments, key=lambda moment: rows * (moment[0] + moment[2]) + moment[1]
    )
    # The gradient of the largest matrix, before it is added to what is there.
    matrix_gradient = max(network.vocab_size, network.d_ff) * network.d_model * FLOAT32
    return StepMemory(
        weights=held + whole,
        gradients=held + whole / 2,
        optimizer=ADAM_MOMENTS * held,
        weight_copies=copies,
        activations=rows * activations,
        transient=rows * transient + matrix_gradient,
    )


def _kept_of_a_row(
    network: MetroT0Config, objective: ObjectiveSettings, hardware: Hardware, row: RowShape
) -> _Kept:
    d, vocabulary, element = network.d_model, network.vocab_size, hardware.element
    rate, auxiliary_rate = network.dropout_rate, network.auxiliary_dropout_rate
    metro = isinstance(objective, MetroSettings)
    encoder = _attention(network, hardware, row.source, row.source, rate, relative_bias=True)
    encoder += _feed_forward(network, hardware, row.source, rate)
    auxiliary = _attention(network, hardware, row.source, row.source, auxiliary_rate, relative_bias=True)
    auxiliary += _feed_forward(network, hardware, row.source, auxiliary_rate)
    decoder = _attention(network, hardware, row.target, row.target, rate, relative_bias=False)
    decoder += _attention(network, hardware, row.target, row.source, rate, relative_bias=False, cross=True)
    decoder += _feed_forward(network, hardware, row.target, rate)
    auxiliary_layers = network.num_auxiliary_layers if metro else 0
    head = row.language_model * (element * d + FLOAT32 * vocabulary)
    outside = (
        head
        + _embedding(network, hardware, row.source, rate)
        + _embedding(network, hardware, row.target, rate)
    )
    outside += FLOAT32 * d * row.source
    if metro:
        outside += _embedding(network, hardware, row.source, auxiliary_rate)
        outside += row.auxiliary_heads * (3 * element * d + FLOAT32 * vocabulary)
        if network.rtd_head == "roberta":
            detected = row.target if network.rtd_location == "decoder" else row.source
            outside += detected * d * (hardware.linear_inputs(1, own=False) + 2 * element)
    boundary = FLOAT32 * d
    boundaries = boundary * row.source * (network.num_layers + auxiliary_layers)
    boundaries += boundary * row.target * network.num_decoder_layers
    return _Kept(
        layers=network.num_layers * encoder
        + auxiliary_layers * auxiliary
        + network.num_decoder_layers * decoder,
        outside=outside,
        boundaries=boundaries,
        largest_layer=max(encoder, decoder),
        head=head,
        layer_gradients=_layer_gradients(network, hardware, row, rate),
        head_gradients=row.language_model * 2 * FLOAT32 * vocabulary,
    )


def _attention(
    network: MetroT0Config,
    hardware: Hardware,
    queries: float,
    keys: float,
    rate: float,
    *,
    relative_bias: bool,
    cross: bool = False,
) -> float:
    """Inputs of the projections, their outputs, scores, input of the output projection; dropout, residual sum."""
    d = network.d_model
    inner = hardware.head_input(relative_bias, rate)
    if cross:
        # In float32 the encoder's states are kept once for all layers (counted outside of them).
        inputs = queries * hardware.linear_inputs(1) + keys * hardware.linear_inputs(2, own=False)
    else:
        inputs = queries * hardware.linear_inputs(3)
    projected = inner * (queries + 2 * keys)
    output = queries * hardware.element
    scores = queries * keys * network.num_heads * hardware.score(relative_bias, rate)
    normalizer = queries * network.num_heads * FLOAT32
    return (
        d * (inputs + projected + output)
        + scores
        + normalizer
        + _add_and_normalize(network, hardware, queries, rate)
    )


def _feed_forward(network: MetroT0Config, hardware: Hardware, positions: float, rate: float) -> float:
    """Input, what the ReLU leaves; dropout, residual sum."""
    kept = network.d_model * hardware.linear_inputs(1) + network.d_ff * hardware.element
    return positions * kept + _add_and_normalize(network, hardware, positions, rate)


def _add_and_normalize(network: MetroT0Config, hardware: Hardware, positions: float, rate: float) -> float:
    mask = hardware.dropout_mask(hardware.element, rate)
    return positions * (network.d_model * (FLOAT32 + mask) + _STATISTICS)


def _embedding(network: MetroT0Config, hardware: Hardware, positions: float, rate: float) -> float:
    mask = hardware.dropout_mask(FLOAT32, rate)
    return positions * (network.d_model * (FLOAT32 + mask) + _STATISTICS + _INDICES)


def _layer_gradients(network: MetroT0Config, hardware: Hardware, row: RowShape, rate: float) -> float:
    """What the backward pass of a decoder layer holds at once: of its feed-forward, or of its scores."""
    feed_forward = row.target * (2 * network.d_ff * hardware.element + 2 * network.d_model * FLOAT32)
    longest = max(row.source, row.target)
    scores = row.target * longest * network.num_heads * hardware.score_gradients(False, rate)
    return max(feed_forward, scores + row.target * 2 * network.d_model * FLOAT32)
