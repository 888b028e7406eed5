"""The METRO objective as an objective: batches, sampling, normalizers, what is projected, totals, and mistakes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.masking import Masking
from metro_t0.objectives.metro import MetroObjective
from metro_t0.objectives.scoring import sample_rows
from tiny_networks import PAD, SENTINELS, VOCAB_SIZE, TextBatch, random_text, randomize, tiny_config

MASK_TOKEN = VOCAB_SIZE - SENTINELS
JUST_BELOW_ONE = float(np.nextafter(np.float32(1.0), np.float32(0.0)))


def objective(**changes: Any) -> MetroObjective:
    vocabulary = {"vocab_size": VOCAB_SIZE, "num_sentinel_tokens": SENTINELS, "pad_token_id": PAD}
    return MetroObjective(**{**vocabulary, "masking": Masking(probability=0.3), "seed": 5, **changes})


def rows(lengths: list[int], seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    made = []
    for length in lengths:
        ids = rng.integers(4, MASK_TOKEN, length)
        ids[0] = 0
        made.append({"input_ids": ids})
    return made


def keys(count: int) -> list[tuple[int, int]]:
    return [(2, index) for index in range(count)]


def gradients(model: MetroT0ForPreTraining, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def model() -> MetroT0ForPreTraining:
    return randomize(MetroT0ForPreTraining(tiny_config())).double()


class TestCollate:
    def test_what_a_batch_holds(self) -> None:
        lengths = [9, 20, 3]
        batch = objective().collate(rows(lengths), keys(3))
        original, masked, mask = batch["original_ids"], batch["masked_ids"], batch["mask"]
        assert original.shape == masked.shape == mask.shape == (3, 24)
        assert original.dtype == masked.dtype == torch.int64 and mask.dtype == torch.bool
        for row, length in enumerate(lengths):
            assert original[row, :length].tolist() == rows(lengths)[row]["input_ids"].tolist()
            assert original[row, length:].eq(PAD).all() and masked[row, length:].eq(PAD).all()
            assert not mask[row, length:].any()
        assert torch.equal(original[~mask], masked[~mask])
        assert masked[mask].eq(MASK_TOKEN).float().mean() > 0.5
        # Shapes depend on the batch's own alone: room for the most that rows of 24 tokens can have masked.
        assert batch["masked_positions"].shape == batch["draws"].shape == (3, int(0.3 * 24) + 1)
        assert batch["draws"].dtype == torch.float32
        for row, places in enumerate(batch["masked_positions"].tolist()):
            found = mask[row].nonzero().squeeze(1).tolist()
            assert places == found + [24] * (len(places) - len(found))
        assert torch.equal(batch["attention_mask"], original.ne(PAD))
        assert "attention_mask" not in objective().collate(rows([24, 24]), keys(2))
        assert batch["draws"].min() >= 0.0 and batch["draws"].max() < 1.0
        assert objective().counts(batch) == {"masked": int(mask.sum()), "tokens": 32}

    def test_masks_and_draws_are_a_function_of_seed_and_key(self) -> None:
        data = rows([30, 17, 25])
        together = self._by_row(objective(), data, keys(3))
        for index in range(3):
            alone = self._by_row(objective(), data[index : index + 1], keys(3)[index : index + 1])
            assert alone == together[index : index + 1]
        assert self._by_row(objective(), data[::-1], keys(3)[::-1]) == together[::-1]
        for other in (
            self._by_row(objective(seed=6), data, keys(3)),
            self._by_row(objective(), data, [(3, 0), (3, 1), (3, 2)]),
        ):
            for ours, theirs in zip(together, other, strict=True):
                assert ours[0] != theirs[0] and ours[1] != theirs[1]

    @staticmethod
    def _by_row(
        objective: MetroObjective, data: list[dict[str, np.ndarray]], keys: list[tuple[int, int]]
    ) -> list[tuple[list[int], list[float]]]:
        batch = objective.collate(data, keys)
        counts = batch["mask"].sum(dim=1).tolist()
        masked = [ids[ids.ne(PAD)].tolist() for ids in batch["masked_ids"]]
        draws = [row[:count].tolist() for row, count in zip(batch["draws"], counts, strict=True)]
        return list(zip(masked, draws, strict=True))


class TestSampling:
    def test_follows_the_distribution(self) -> None:
        torch.manual_seed(0)
        logits = torch.randn(12) * 1.5
        count = 60_000
        drawn = sample_rows(logits.expand(count, -1), torch.rand(count))
        seen = torch.bincount(drawn, minlength=12)
        expected = logits.double().softmax(0) * count
        chi_square = ((seen - expected) ** 2 / expected).sum()
        assert chi_square < 31.3, "one in a thousand exceeds this with 11 degrees of freedom"

    @pytest.mark.parametrize("draw", [0.0, 0.5, JUST_BELOW_ONE])
    @pytest.mark.parametrize("impossible", [-float("inf"), -1e4])
    def test_certain_tokens(self, draw: float, impossible: float) -> None:
        logits = torch.full((7, 7), impossible).fill_diagonal_(3.0)
        assert sample_rows(logits, torch.full((7,), draw)).tolist() == list(range(7))

    @settings(max_examples=50, deadline=None)
    @given(
        size=st.integers(2, 3000),
        draw=st.sampled_from([0.0, 1e-7, 0.25, JUST_BELOW_ONE]),
        seed=st.integers(0, 99),
    )
    def test_never_an_impossible_token(self, size: int, draw: float, seed: int) -> None:
        """Impossible tokens at both ends and in between; rounding of the cumulative sum must not reach them."""
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(4, size, generator=generator) * 4
        possible = torch.rand(4, size, generator=generator) < 0.4
        possible[:, size // 2] = True
        logits[~possible] = -float("inf")
        drawn = sample_rows(logits, torch.full((4,), draw))
        assert possible[torch.arange(4), drawn].all()

    def test_the_ends_of_the_unit_interval(self) -> None:
        logits = torch.zeros(2, 5)
        assert sample_rows(logits, torch.tensor([0.0, JUST_BELOW_ONE])).tolist() == [0, 4]

    def test_no_rows(self) -> None:
        assert sample_rows(torch.zeros(0, 5), torch.zeros(0)).shape == (0,)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_summed_in_single(self, dtype: torch.dtype) -> None:
        """In bfloat16 a cumulative sum over so many tokens would stop growing halfway."""
        logits = torch.zeros(3, 5000, dtype=dtype)
        drawn = sample_rows(logits, torch.tensor([0.1, 0.5, 0.9]))
        assert (drawn - torch.tensor([500, 2500, 4500])).abs().max() <= 2


class TestSamplingMode:
    """What the main encoder reads, with much dropout in the auxiliary model."""

    @staticmethod
    def _runs(sampling: str) -> list[tuple[torch.Tensor, float]]:
        config = tiny_config(auxiliary_dropout_rate=0.5)
        model = randomize(MetroT0ForPreTraining(config)).train()
        batch = objective().collate(rows([30, 30, 30]), keys(3))
        read: list[torch.Tensor] = []
        model.encoder.register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
        losses = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            losses.append(objective(sampling=sampling)(model, batch).auxiliary_loss.item())
            assert model.auxiliary.training and model.auxiliary.encoder.block[0].training
        return list(zip(read, losses, strict=True))

    def test_eval_samples_without_dropout_and_learns_with_it(self) -> None:
        (first, first_loss), (second, second_loss) = self._runs("eval")
        assert torch.equal(first, second)
        assert first_loss != second_loss

    def test_train_samples_from_the_pass_that_learns(self) -> None:
        (first, _), (second, _) = self._runs("train")
        assert not torch.equal(first, second)

    def test_samples_are_those_of_the_draws(self, model: MetroT0ForPreTraining) -> None:
        batch = objective().collate(rows([30, 12]), keys(2))
        read: list[torch.Tensor] = []
        handle = model.encoder.register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
        output = objective()(model, batch)
        handle.remove()
        states = model.auxiliary.encoder(batch["masked_ids"], batch["masked_ids"].ne(PAD)).last_hidden_state
        mask = batch["mask"]
        expected = batch["masked_ids"].clone()
        draws = batch["draws"][batch["masked_positions"] < mask.shape[1]]
        expected[mask] = sample_rows(model.auxiliary.project(states)[mask], draws)
        assert torch.equal(read[0], expected)
        assert read[0][~mask].eq(batch["original_ids"][~mask]).all()
        # Given as replacements, the same samples give the same loss.
        again = objective()(model, {**batch, "replaced_ids": expected})
        assert again.loss.item() == pytest.approx(output.loss.item(), rel=1e-6)

    def test_nothing_flows_through_the_samples(self, model: MetroT0ForPreTraining) -> None:
        batch = objective().collate(rows([30, 12]), keys(2))
        output = objective(rtd_weight=2.0)(model, batch)
        own = [p for name, p in model.named_parameters() if name.startswith("auxiliary.")]
        detached = torch.autograd.grad(output.lm_loss + output.rtd_loss, own, allow_unused=True)
        assert all(gradient is None for gradient in detached)

    def test_without_draws_the_generator_of_torch_decides(self, model: MetroT0ForPreTraining) -> None:
        batch = objective().collate(rows([30, 30]), keys(2))
        del batch["draws"]
        losses = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            losses.append(objective()(model, batch).loss.item())
        assert losses[0] == losses[1] != losses[2]


class TestProjection:
    @settings(max_examples=12, deadline=None)
    @given(
        lengths=st.lists(st.integers(2, 30), min_size=1, max_size=4),
        share=st.sampled_from([0.05, 0.3, 1.0]),
        gated=st.booleans(),
        seed=st.integers(0, 999),
    )
    def test_masked_positions_alone_give_what_all_give(
        self, model: MetroT0ForPreTraining, lengths: list[int], share: float, gated: bool, seed: int
    ) -> None:
        text = random_text(lengths, seed, share)
        ours = model(
            **text.inputs(), objective=objective(gate_lm_by_rtd=gated, rtd_weight=0.0, lm_weight=2.0)
        )
        expected = self._projecting_everything(model, text, gated)
        assert ours.loss.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)
        by_ours, by_all = gradients(model, ours.loss), gradients(model, expected)
        for name, gradient in by_all.items():
            torch.testing.assert_close(by_ours[name], gradient, rtol=1e-5, atol=1e-6, msg=name)

    @staticmethod
    def _projecting_everything(model: MetroT0ForPreTraining, text: TextBatch, gated: bool) -> torch.Tensor:
        """2 * corrective + auxiliary loss with every position projected and the others multiplied by zero."""
        real = text.original.ne(PAD)
        encoder_real = text.corrupted.ne(PAD)
        encoded = model.encoder(text.corrupted, encoder_real).last_hidden_state
        start = torch.full((len(text.original), 1), MASK_TOKEN)
        decoded = model.decoder(
            torch.cat([start, text.original[:, :-1]], dim=1),
            encoder_hidden_states=encoded,
            encoder_attention_mask=encoder_real,
        ).last_hidden_state
        auxiliary = model.auxiliary.project(model.auxiliary.encoder(text.masked, real).last_hidden_state)
        weights = text.mask.double() / text.mask.sum().clamp(min=1)
        gate = model.rtd_head(encoded).sigmoid().detach() if gated else 1.0
        corrective, masked = (
            functional.cross_entropy(logits.transpose(1, 2), text.original, reduction="none")
            for logits in (model.project(decoded), auxiliary)
        )
        # A head without weight still takes part, with a gradient of zero.
        return (weights * (2.0 * gate * corrective + masked)).sum() + 0.0 * model.rtd_head(encoded).sum()

    @pytest.mark.parametrize("positions", ["masked", "all"])
    def test_only_what_the_loss_needs_is_projected(
        self, model: MetroT0ForPreTraining, positions: str
    ) -> None:
        text = random_text([14, 9, 20])
        projected: list[int] = []
        handle = model.lm_head.register_forward_hook(
            lambda module, inputs, output: projected.append(inputs[0].flatten(0, -2).shape[0])
        )
        model(**text.inputs(), objective=objective(lm_positions=positions))
        handle.remove()
        # Rows are padded to the row with most masks, or to the longest row.
        most = text.mask.sum(dim=1).max() if positions == "masked" else text.original.shape[1]
        assert projected == [3 * most]

    def test_all_positions_are_predicted_in_validation_alone(self, model: MetroT0ForPreTraining) -> None:
        text = random_text([14, 9, 20])
        assert "lm_accuracy_all" not in model(**text.inputs(), objective=objective()).totals
        with torch.no_grad():
            hits, count = model(**text.inputs(), objective=objective()).totals["lm_accuracy_all"].tolist()
        assert count == 43 and 0 <= hits <= 43


class TestMaskedPositions:
    @settings(max_examples=12, deadline=None)
    @given(
        lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
        probability=st.sampled_from([0.05, 0.3, 0.8]),
        changes=st.sampled_from(
            [{}, {"lm_positions": "all"}, {"rtd_positions": "masked"}, {"gate_lm_by_rtd": True}]
        ),
        seed=st.integers(0, 999),
    )
    def test_room_that_is_not_used_weighs_nothing(
        self,
        model: MetroT0ForPreTraining,
        lengths: list[int],
        probability: float,
        changes: dict[str, Any],
        seed: int,
    ) -> None:
        """A collated batch has room for the most masked tokens of any row; positions found in the mask fit exactly."""
        metro = objective(masking=Masking(probability=probability), seed=seed, **changes)
        batch = metro.collate(rows(lengths, seed), keys(len(lengths)))
        mask = batch["mask"]
        if not mask.any():
            return
        drawn = torch.from_numpy(np.random.default_rng(seed).integers(4, VOCAB_SIZE, mask.shape))
        batch["replaced_ids"] = batch["masked_ids"].where(~mask, drawn)
        roomy = metro(model, batch)
        exact = metro(
            model, {name: batch[name] for name in ("original_ids", "masked_ids", "mask", "replaced_ids")}
        )
        assert roomy.totals.keys() == exact.totals.keys()
        for name, total in exact.totals.items():
            torch.testing.assert_close(roomy.totals[name], total, rtol=1e-6, atol=1e-6, msg=name)
        by_roomy, by_exact = gradients(model, roomy.loss), gradients(model, exact.loss)
        for name, gradient in by_exact.items():
            torch.testing.assert_close(by_roomy[name], gradient, rtol=1e-6, atol=1e-6, msg=name)


class TestNormalizers:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"lm_positions": "all", "gate_lm_by_rtd": True},
            {"rtd_positions": "masked"},
            {"decoder_target": "masked"},
        ],
        ids=str,
    )
    def test_micro_batches_add_up_to_one_batch(
        self, model: MetroT0ForPreTraining, changes: dict[str, Any]
    ) -> None:
        metro = objective(**changes)
        data = rows([30, 4, 17, 25, 3, 8, 12, 32])
        whole = metro.collate(data, keys(8))
        output = metro(model, whole)
        expected = gradients(model, output.loss)

        micro = [metro.collate(data[i : i + 2], keys(8)[i : i + 2]) for i in range(0, 8, 2)]
        counts = [metro.counts(batch) for batch in micro]
        totals = {name: sum(count[name] for count in counts) for name in ("masked", "tokens")}
        assert totals == metro.counts(whole)
        for normalizers in (totals, {name: torch.tensor(count) for name, count in totals.items()}):
            parts = [metro(model, batch, normalizers) for batch in micro]
            for name in ("loss", *metro.loss_parts):
                added = sum(getattr(part, name).item() for part in parts)
                assert added == pytest.approx(getattr(output, name).item(), rel=1e-6), name
            model.zero_grad()
            for part in parts:
                part.loss.backward()
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-6, msg=name)
        for name, total in output.totals.items():
            torch.testing.assert_close(sum(part.totals[name] for part in parts), total, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("sampling", ["train", "eval"])
    @pytest.mark.parametrize(
        ("lm_positions", "rtd_positions", "target"),
        [
            ("masked", "all", "all"),
            ("all", "all", "all"),
            ("masked", "masked", "all"),
            ("masked", "all", "masked"),
        ],
    )
    def test_a_batch_without_a_masked_position(
        self,
        model: MetroT0ForPreTraining,
        lm_positions: str,
        rtd_positions: str,
        target: str,
        sampling: str,
    ) -> None:
        metro = objective(
            masking=Masking(probability=0.0),
            lm_positions=lm_positions,
            rtd_positions=rtd_positions,
            decoder_target=target,
            sampling=sampling,
            gate_lm_by_rtd=True,
        )
        batch = metro.collate(rows([9, 5]), keys(2))
        assert batch["masked_positions"].eq(batch["original_ids"].shape[1]).all()
        output = metro(model, batch)
        assert output.auxiliary_loss == 0.0
        assert (output.lm_loss == 0.0) == (lm_positions == "masked")
        assert (output.rtd_loss == 0.0) == (rtd_positions == "masked")
        assert all(torch.isfinite(total).all() for total in output.totals.values())
        assert all(torch.isfinite(gradient).all() for gradient in gradients(model, output.loss).values())
        for zero in (0, torch.tensor(0)):
            counts = {"masked": zero, "tokens": torch.tensor(14)}
            assert metro(model, batch, counts).loss.item() == pytest.approx(output.loss.item())

    def test_a_row_without_a_masked_position(self, model: MetroT0ForPreTraining) -> None:
        text = random_text([12, 9, 14])
        text.mask[1] = False
        text.corrupted[1] = text.original[1]
        for target in ("all", "masked"):
            output = model(**text.inputs(), objective=objective(decoder_target=target))
            assert torch.isfinite(output.loss)
            assert output.totals["lm_loss"][1] == text.mask.sum()


class TestTotals:
    """Networks that always answer the same, so that every count can be made by hand."""

    K = 7
    # Masked: 5 (kept), 7 (replaced), 7 (kept), 8 (replaced) and 9 (replaced by a 7).
    ORIGINAL = ((0, 5, 7, 6, 7, 2), (0, 8, 9, 2, PAD, PAD))
    CORRUPTED = ((0, 5, 10, 6, 7, 2), (0, 11, 7, 2, PAD, PAD))
    MASK = ((0, 1, 1, 0, 1, 0), (0, 1, 1, 0, 0, 0))

    @pytest.fixture
    def stubborn(self, model: MetroT0ForPreTraining) -> MetroT0ForPreTraining:
        model = copy.deepcopy(model)
        with torch.no_grad():
            model.auxiliary.head.bias[self.K] = 1e3
            last = model.decoder.block[-1].layer[2].layer_norm
            last.weight.zero_()
            last.bias.copy_(model.shared.weight[self.K] * 10)
            model.shared.weight[self.K] *= 10
            model.rtd_head.out.weight.zero_()
        return model

    def _totals(self, model: MetroT0ForPreTraining, **changes: Any) -> dict[str, list[float]]:
        ids = {
            "original_ids": torch.tensor(self.ORIGINAL),
            "masked_ids": torch.tensor(self.ORIGINAL),
            "mask": torch.tensor(self.MASK, dtype=torch.bool),
            "replaced_ids": torch.tensor(self.CORRUPTED),
        }
        with torch.no_grad():
            totals = model(**ids, objective=objective(**changes)).totals
        assert all(total.dtype == torch.float32 and total.shape == (2,) for total in totals.values())
        return {name: total.tolist() for name, total in totals.items()}

    @pytest.mark.parametrize("says_replaced", [True, False])
    @pytest.mark.parametrize("target", ["all", "masked"])
    def test_counts(self, stubborn: MetroT0ForPreTraining, says_replaced: bool, target: str) -> None:
        with torch.no_grad():
            stubborn.rtd_head.out.bias.fill_(2.0 if says_replaced else -2.0)
        totals = self._totals(stubborn, decoder_target=target)
        assert totals["auxiliary_accuracy"] == [2, 5]
        assert totals["replace_ratio"] == [3, 10]
        assert totals["lm_accuracy_replaced"] == [1, 3]
        assert totals["lm_accuracy_kept"] == [1, 2]
        assert totals["rtd_recall"] == [3 if says_replaced else 0, 3]
        assert totals["rtd_specificity"] == [0 if says_replaced else 7, 7]
        assert totals["rtd_precision"] == ([3, 10] if says_replaced else [0, 0])
        likely, unlikely = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
        replaced, original = (likely, unlikely) if says_replaced else (unlikely, likely)
        assert totals["rtd_loss"] == pytest.approx([3 * replaced + 7 * original, 10])
        assert totals["auxiliary_loss"][1] == totals["lm_loss"][1] == 5
        parts = [totals[f"lm_loss_{part}"] for part in ("replaced", "kept")]
        assert [count for _, count in parts] == [3, 2]
        assert sum(part for part, _ in parts) == pytest.approx(totals["lm_loss"][0])
        assert parts[1][0] < totals["lm_loss"][0] / 2, "one of two kept tokens is what it always answers"
        certain, doubtful = (8, 1) if says_replaced else (1, 8)
        assert totals[f"rtd_bin_share_{certain}"] == [10, 10] and totals[f"rtd_bin_share_{doubtful}"] == [
            0,
            10,
        ]
        assert totals[f"rtd_predicted_{certain}"] == pytest.approx(
            [10 / (1 + np.exp(-2.0 if says_replaced else 2.0)), 10]
        )
        assert totals[f"rtd_observed_{certain}"] == [3, 10]
        if target == "all":
            assert totals["lm_accuracy_all"] == [2, 10]
        else:
            assert "lm_accuracy_all" not in totals

    def test_over_other_positions(self, stubborn: MetroT0ForPreTraining) -> None:
        with torch.no_grad():
            stubborn.rtd_head.out.bias.fill_(-2.0)
        totals = self._totals(stubborn, lm_positions="all")
        assert totals["lm_loss"][1] == 10
        assert totals["lm_accuracy_replaced"] == [1, 3] and totals["lm_accuracy_kept"] == [1, 2]
        totals = self._totals(stubborn, rtd_positions="masked")
        assert totals["rtd_loss"][1] == 5
        assert totals["rtd_recall"] == [0, 3] and totals["rtd_specificity"] == [2, 2]

    def test_a_logit_of_zero_says_replaced(self, stubborn: MetroT0ForPreTraining) -> None:
        with torch.no_grad():
            stubborn.rtd_head.out.bias.zero_()
        assert self._totals(stubborn)["rtd_recall"] == [3, 3]


class TestMistakes:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"lm_positions": "some"}, "lm_positions must be masked or all, not 'some'"),
            ({"rtd_positions": "none"}, "rtd_positions must be all or masked"),
            ({"decoder_target": "short"}, "decoder_target must be all or masked"),
            ({"sampling": "test"}, "sampling must be train or eval"),
            ({"decoder_target": "masked", "lm_positions": "all"}, "set lm_positions to masked"),
        ],
        ids=str,
    )
    def test_settings(self, changes: dict[str, str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            objective(**changes)

    @pytest.mark.parametrize("changes", [{}, {"rtd_weight": 0.0, "gate_lm_by_rtd": True}], ids=str)
    def test_a_model_without_a_head(self, changes: dict[str, Any]) -> None:
        model = MetroT0ForPreTraining(tiny_config(rtd_head="none"))
        with pytest.raises(ValueError, match=r"rtd_head: none.*set rtd_weight to 0"):
            model(**random_text([6]).inputs(), objective=objective(**changes))
        assert model(**random_text([6]).inputs(), objective=objective(rtd_weight=0.0)).rtd_loss == 0.0

    def test_a_head_on_a_short_decoder(self) -> None:
        model = MetroT0ForPreTraining(tiny_config(rtd_location="decoder"))
        text = random_text([6]).inputs()
        with pytest.raises(ValueError, match="set rtd_positions to masked"):
            model(**text, objective=objective(decoder_target="masked"))
        model(**text, objective=objective(decoder_target="masked", rtd_positions="masked"))
