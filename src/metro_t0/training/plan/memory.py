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

    def dropout_mask(self, element: int, rate: float) -> int:
        """Bytes kept of an entry's mask: as wide as the entry on a CPU, a byte on a GPU."""
        if rate == 0.0:
            return 0
        return element if self.device == "cpu" else 1

    def score(self, relative_bias: bool) -> int:
        """Bytes kept of one attention score, a (head, query, key).

        On a CPU the probabilities, dropped ones marked by their sign. On a GPU attention is fused and keeps none, but
        its additive bias, filled with the row's padding, where it has one.
        """
        return self.element if self.device == "cpu" or relative_bias else 0


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
    auxiliary_layers = network.num_auxiliary_layers if metro else 0
    # Last layers whose states no loss reads but at masked positions compute the rest for those alone.
    heard = row.language_model if metro and row.language_model < row.target else row.target
    decoder, last_decoder = (
        _decoder(network, hardware, row, queries, rate) for queries in (row.target, heard)
    )
    auxiliary, last_auxiliary = (
        _attention(network, hardware, queries, row.source, auxiliary_rate, relative_bias=True)
        + _feed_forward(network, hardware, queries, auxiliary_rate)
        for queries in (row.source, row.auxiliary_heads)
    )
    layers = network.num_layers * encoder + (network.num_decoder_layers - 1) * decoder + last_decoder
    if metro:
        layers += (auxiliary_layers - 1) * auxiliary + last_auxiliary
    head = row.language_model * (element * d + FLOAT32 * vocabulary)
    outside = (
        head
        + _embedding(network, hardware, row.source, rate)
        + _embedding(network, hardware, row.target, rate)
    )
    outside += element * d * row.source
    if metro:
        outside += _embedding(network, hardware, row.source, auxiliary_rate)
        outside += row.auxiliary_heads * (3 * element * d + FLOAT32 * vocabulary)
        if network.rtd_head == "roberta":
            detected = row.target if network.rtd_location == "decoder" else row.source
            outside += detected * d * 2 * element
    boundary = element * d
    boundaries = boundary * row.source * (network.num_layers + auxiliary_layers)
    boundaries += boundary * row.target * network.num_decoder_layers
    return _Kept(
        layers=layers,
        outside=outside,
        boundaries=boundaries,
        largest_layer=max(encoder, decoder),
        head=head,
        layer_gradients=_layer_gradients(network, hardware, row),
        head_gradients=row.language_model * 2 * FLOAT32 * vocabulary,
    )


def _decoder(network: MetroT0Config, hardware: Hardware, row: RowShape, queries: float, rate: float) -> float:
    kept = _attention(network, hardware, queries, row.target, rate, relative_bias=False)
    kept += _attention(network, hardware, queries, row.source, rate, relative_bias=False, cross=True)
    return kept + _feed_forward(network, hardware, queries, rate)


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
    # The states that cross-attention reads are kept once for all layers, outside of them.
    inputs = queries if cross else max(queries, keys)
    numbers = inputs + (queries + 2 * keys) + queries
    scores = queries * keys * network.num_heads * hardware.score(relative_bias)
    normalizers = queries * network.num_heads * FLOAT32
    kept = network.d_model * hardware.element * numbers + scores + normalizers
    return kept + _add_and_normalize(network, hardware, queries, rate)


def _feed_forward(network: MetroT0Config, hardware: Hardware, positions: float, rate: float) -> float:
    """Input, what the ReLU leaves; dropout, residual sum."""
    kept = positions * hardware.element * (network.d_model + network.d_ff)
    return kept + _add_and_normalize(network, hardware, positions, rate)


def _add_and_normalize(network: MetroT0Config, hardware: Hardware, positions: float, rate: float) -> float:
    mask = hardware.dropout_mask(hardware.element, rate)
    return positions * (network.d_model * (hardware.element + mask) + _STATISTICS)


def _embedding(network: MetroT0Config, hardware: Hardware, positions: float, rate: float) -> float:
    mask = hardware.dropout_mask(FLOAT32, rate)
    return positions * (network.d_model * (FLOAT32 + mask) + _STATISTICS + _INDICES)


def _layer_gradients(network: MetroT0Config, hardware: Hardware, row: RowShape) -> float:
    """What the backward pass of a feed-forward holds at once; that of attention goes a few rows at a time."""
    return row.target * hardware.element * 2 * (network.d_ff + network.d_model)
