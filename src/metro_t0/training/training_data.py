"""The rows of a run: those to train on, in their order, and those held out."""

from __future__ import annotations

from dataclasses import dataclass, field

from metro_t0.config import TrainingSettings
from metro_t0.data.rows import TokenRows
from metro_t0.data.sampler import EpochOrder, MicroBatch, StepRows, StepSampler, padded_tokens
from metro_t0.objectives.base import Batch, Objective
from metro_t0.training.distributed import World


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on and to validate with; ``epoch_order`` as ``StepSampler`` takes it; whose share of them."""

    train: TokenRows
    validation: TokenRows
    epoch_order: EpochOrder | None = None
    world: World = field(default_factory=World)

    def sampler(self, settings: TrainingSettings) -> StepSampler:
        """A sampler at the beginning of the run."""
        return StepSampler(
            self.train.lengths,
            batch_tokens=settings.batch_tokens,
            micro_batch_tokens=settings.micro_batch_tokens,
            seed=settings.seed,
            epoch_order=self.epoch_order,
            rank=self.world.rank,
            processes=self.world.size,
        )

    def collate(self, objective: Objective, micro_batch: MicroBatch) -> Batch:
        """A micro-batch of the training rows as the objective wants it."""
        return objective.collate([self.train[index] for index in micro_batch.rows], micro_batch.keys)

    def token_counts(self, rows: StepRows) -> tuple[int, int]:
        """Tokens of a step's micro-batches here, without padding and with it."""
        lengths = [self.train.lengths[micro_batch.rows] for micro_batch in rows.micro_batches]
        return sum(int(part.sum()) for part in lengths), sum(padded_tokens(part) for part in lengths)
