"""The shared loss: projecting only real targets gives what projecting everything does, gradients included."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.objectives.base import Batch
from metro_t0.objectives.prompted import PromptedObjective
from metro_t0.objectives.span_corruption import SpanCorruptionObjective

PAD, VOCAB_SIZE, SENTINELS = 1, 140, 40
PROMPTED = PromptedObjective(pad_token_id=PAD)
CORRUPTION = SpanCorruptionObjective(
    vocab_size=VOCAB_SIZE, num_sentinel_tokens=SENTINELS, pad_token_id=PAD, seed=3
)
lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20)), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def model() -> MetroT0ForConditionalGeneration:
    torch.manual_seed(0)
    config = MetroT0Config(
        vocab_size=VOCAB_SIZE,
        num_sentinel_tokens=SENTINELS,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        dropout_rate=0.0,
    )
    return MetroT0ForConditionalGeneration(config)


def _rows(lengths: list[tuple[int, int]]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(len(lengths))
    return [
        {
            "input_ids": np.append(rng.integers(4, 100, source), 2),
            "labels": np.append(rng.integers(4, 100, target - 1), 2),
        }
        for source, target in lengths
    ]


def _keys(rows: list) -> list[tuple[int, int]]:
    return [(0, i) for i in range(len(rows))]


def _gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def _plain_loss(model: MetroT0ForConditionalGeneration, batch: Batch) -> tuple[torch.Tensor, float]:
    """The published forward over every position, padding ignored in the loss; and its accuracy."""
    labels = torch.full_like(batch["decoder_input_ids"], -100)
    labels.view(-1)[batch["target_positions"]] = batch["target_ids"]
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=batch["decoder_input_ids"],
        use_cache=False,
    ).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    right = (logits.argmax(-1) == labels)[labels != -100]
    return loss, right.float().mean().item()


@settings(max_examples=15, deadline=None)
@given(lengths=lengths, corrupted=st.booleans())
def test_loss_and_gradients_equal_the_projection_of_all_positions(
    model: MetroT0ForConditionalGeneration, lengths: list[tuple[int, int]], corrupted: bool
) -> None:
    objective = CORRUPTION if corrupted else PROMPTED
    rows = _rows(lengths)
    batch = objective.collate(rows, _keys(rows))
    output = objective(model, batch)
    plain, accuracy = _plain_loss(model, batch)
    torch.testing.assert_close(output.loss, plain, rtol=1e-5, atol=1e-5)
    ours, theirs = _gradients(model, output.loss), _gradients(model, plain)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6, msg=name)
    count = objective.counts(batch)["lm"]
    assert set(output.totals) == {"loss", "lm_loss", "lm_accuracy"} >= set(objective.loss_parts)
    for name, expected in {"loss": plain.item(), "lm_loss": plain.item(), "lm_accuracy": accuracy}.items():
        total = output.totals[name]
        assert total.shape == (2,) and total.dtype == torch.float32 and not total.requires_grad
        assert total[1] == count
        assert (total[0] / total[1]).item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("objective", [PROMPTED, CORRUPTION], ids=["prompted", "span_corruption"])
def test_micro_batches_divided_by_the_whole_count_make_the_step_of_one_batch(
    model: MetroT0ForConditionalGeneration, objective: PromptedObjective | SpanCorruptionObjective
) -> None:
    rows = _rows([(30, 3), (4, 12), (17, 1), (9, 20), (28, 7), (2, 2), (25, 9), (11, 5)])
    keys = _keys(rows)
    whole = objective(model, objective.collate(rows, keys))
    expected = _gradients(model, whole.loss)

    batches = [objective.collate(rows[i : i + 2], keys[i : i + 2]) for i in range(0, 8, 2)]
    total = sum(objective.counts(batch)["lm"] for batch in batches)
    outputs = [objective(model, batch, {"lm": torch.tensor(float(total))}) for batch in batches]
    accumulated = _gradients(model, sum(output.loss for output in outputs))
    for name, gradient in expected.items():
        torch.testing.assert_close(accumulated[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    for name, value in whole.totals.items():
        torch.testing.assert_close(
            sum(output.totals[name] for output in outputs), value, rtol=1e-5, atol=1e-4
        )


def test_each_target_token_weighs_the_same_whatever_its_row(model: MetroT0ForConditionalGeneration) -> None:
    rows = _rows([(20, 1), (6, 19)])
    alone = [PROMPTED(model, PROMPTED.collate([row], [(0,)])).loss for row in rows]
    together = PROMPTED(model, PROMPTED.collate(rows, _keys(rows))).loss
    torch.testing.assert_close(together, (alone[0] * 1 + alone[1] * 19) / 20)


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "weights"])
def test_reduced_precision_keeps_the_loss_and_totals_in_float32(
    model: MetroT0ForConditionalGeneration, autocast: bool
) -> None:
    rows = _rows([(20, 8), (6, 19)])
    batch = PROMPTED.collate(rows, _keys(rows))
    exact = PROMPTED(model, batch)
    reduced_model = model if autocast else copy.deepcopy(model).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        reduced = PROMPTED(reduced_model, batch)
    assert reduced.loss.dtype == torch.float32
    assert {total.dtype for total in reduced.totals.values()} == {torch.float32}
    torch.testing.assert_close(reduced.loss, exact.loss, rtol=0.02, atol=0.02)
    assert not torch.equal(reduced.loss, exact.loss)


class _OperatorNames(TorchDispatchMode):
    """Collects the name of every operator that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", [PROMPTED, CORRUPTION], ids=["prompted", "span_corruption"])
def test_no_operator_makes_the_host_wait_for_the_device(
    model: MetroT0ForConditionalGeneration, objective: PromptedObjective | SpanCorruptionObjective
) -> None:
    rows = _rows([(20, 8), (6, 19)])
    batch = objective.collate(rows, _keys(rows))
    with _OperatorNames() as operators:
        objective(model, batch, {"lm": torch.tensor(27.0)}).loss.backward()
    assert "index_select" in operators.names
    assert not operators.names & {"_local_scalar_dense", "item", "nonzero", "masked_select", "unique"}


def test_span_corruption_learns_a_regular_text(model: MetroT0ForConditionalGeneration) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = [{"input_ids": (np.arange(40) + start) % 10 + 10} for start in range(16)]
    losses = []
    for step in range(60):
        batch = CORRUPTION.collate(rows, [(step, i) for i in range(len(rows))])
        output = CORRUPTION(model, batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    model.load_state_dict(state)
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
