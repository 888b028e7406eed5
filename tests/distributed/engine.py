"""Several updates of several tiny networks on however many processes run this; what each step was, as JSON.

torchrun --nproc-per-node 2 tests/distributed/engine.py out.json ddp fsdp
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets import Sequence as SequenceFeature

HERE = Path(__file__).parent
sys.path += [str(HERE.parent), str(HERE.parent / "training")]

from small_runs import BagObjective, bag_model, bag_settings, token_rows  # noqa: E402
from torch import nn  # noqa: E402

from metro_t0.config import OptimizerSettings  # noqa: E402
from metro_t0.data.rows import TokenRows  # noqa: E402
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration  # noqa: E402
from metro_t0.modeling.pretraining import MetroT0ForPreTraining  # noqa: E402
from metro_t0.objectives.base import Inspectable, Objective  # noqa: E402
from metro_t0.objectives.metro import MetroObjective  # noqa: E402
from metro_t0.objectives.prompted import PromptedObjective  # noqa: E402
from metro_t0.training.distributed import Parallel, World, joined, whole  # noqa: E402
from metro_t0.training.optimizer import build_optimizer  # noqa: E402
from metro_t0.training.samples import Samples  # noqa: E402
from metro_t0.training.training_data import TrainingData  # noqa: E402
from metro_t0.training.update import Updater  # noqa: E402
from metro_t0.training.validation import Validation  # noqa: E402
from tiny_networks import PAD, SENTINELS, VOCAB_SIZE, tiny_config  # noqa: E402

Kind = Literal["ddp", "fsdp"]
OPTIMIZER = OptimizerSettings(learning_rate=0.01, warmup_steps=0, clip_norm=0.5)
SETTINGS = bag_settings(batch_tokens=110, micro_batch_tokens=30)
STEPS = 6
# Where one process alone has a loss or a gradient that is not a number.
POISON = {2: "loss", 4: "gradient"}


def text_rows(columns: tuple[str, ...], number: int, seed: int) -> TokenRows:
    """Rows of 3 to 20 ordinary tokens in every column."""
    rng = np.random.default_rng(seed)
    values = {
        name: [rng.integers(4, VOCAB_SIZE - SENTINELS, rng.integers(3, 21)).tolist() for _ in range(number)]
        for name in columns
    }
    features = Features({name: SequenceFeature(Value("uint16")) for name in columns})
    return TokenRows(Dataset.from_dict(values, features=features), columns)


def metro(**changes: Any) -> MetroObjective:
    return MetroObjective(
        vocab_size=VOCAB_SIZE, num_sentinel_tokens=SENTINELS, pad_token_id=PAD, seed=3, **changes
    )


Task = Callable[[World], tuple[nn.Module, Objective, tuple[str, ...]]]
TASKS: dict[str, Task] = {
    "metro": lambda world: (MetroT0ForPreTraining(tiny_config()), metro(), ("input_ids",)),
    "short target": lambda world: (
        MetroT0ForPreTraining(tiny_config(rtd_location="decoder", auxiliary_sharing="none")),
        metro(sampling="eval", decoder_target="masked", rtd_positions="masked", gate_lm_by_rtd=True),
        ("input_ids",),
    ),
    "no detection": lambda world: (
        MetroT0ForPreTraining(tiny_config(rtd_head="none")),
        metro(rtd_weight=0.0),
        ("input_ids",),
    ),
    "prompted": lambda world: (
        MetroT0ForConditionalGeneration(tiny_config()),
        PromptedObjective(pad_token_id=PAD),
        ("input_ids", "labels"),
    ),
    "poisoned": lambda world: (
        bag_model(dropout=0.0),
        BagObjective(POISON if world.rank == world.size - 1 else {}),
        ("bag",),
    ),
}


class _Digits:
    """Pieces that are the ids, so that sums tell of them."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [str(index) for index in ids]


def run_task(task: str, world: World, kind: Kind) -> list[dict[str, Any]]:
    """What every step was, and last what validation found and how far the weights have gone."""
    torch.manual_seed(1)
    model, objective, columns = TASKS[task](world)
    if columns == ("bag",):
        train, held_out = token_rows(60, 1), token_rows(11, 2)
    else:
        train, held_out = text_rows(columns, 60, 1), text_rows(columns, 11, 2)
    data = TrainingData(train, held_out, world=world)
    parallel = Parallel(model.train(), objective, world, kind)
    updater = Updater(
        parallel,
        build_optimizer(model.parameters(), OPTIMIZER),
        precision="fp32",
        seed=1,
        clip_norm=OPTIMIZER.clip_norm,
    )
    validation = Validation(objective, held_out, number=9, micro_batch_tokens=30, seed=1, world=world)
    sampler = data.sampler(SETTINGS)
    found: list[dict[str, Any]] = []
    for _ in range(STEPS):
        step = sampler.next_step()
        batches = [data.collate(objective, micro_batch) for micro_batch in step.micro_batches]
        tally = updater.run(step.step, batches, OPTIMIZER.learning_rate, step.idle)
        found.append(
            {
                "loss": float(tally.loss),
                "norm": float(tally.norms.total),
                "norms": {part: float(norm) for part, norm in tally.norms.parts.items()},
                "skipped": bool(tally.nonfinite.any()),
                "totals": dict(zip(tally.names, tally.totals.tolist(), strict=True)),
                "passes": len(batches),
                "idle": len(step.idle),
            }
        )
        if step.step == STEPS // 2:
            found[-1]["validation"] = validation.run(parallel, "fp32")
    found[-1]["validation"] = validation.run(parallel, "fp32")
    if isinstance(objective, Inspectable):
        samples = Samples(objective, held_out, _Digits()).take(parallel, "fp32")
        found[-1]["samples"] = {
            str(place): {
                name: sum(value for value in map(float, filter(None, row[name])))
                for name in ("original", "replaced", "detection", "restored")
            }
            for place, row in enumerate(samples)
        }
    found[-1]["weights"] = {
        name: float(whole(value.detach()).double().norm()) for name, value in model.named_parameters()
    }
    return found


def agreement(world: World) -> dict[str, str]:
    """What this process hears when the last one, and then the first, makes a mistake."""
    heard = {"from main": world.from_main(lambda: f"process {world.rank}")}
    for name, culprit in (("own mistake", world.size - 1), ("another's mistake", 0)):
        try:
            with world.together():
                if world.rank == culprit:
                    raise ValueError(f"process {world.rank} is at fault")
        except ValueError as mistake:
            heard[name] = str(mistake)
    return heard


def main() -> None:
    out, *kinds = sys.argv[1:]
    with joined() as world:
        found: dict[str, Any] = {"agreement": agreement(world)}
        for kind in kinds:
            for task in TASKS:
                found[f"{kind} {task}"] = run_task(task, world, kind)  # type: ignore[arg-type]
        if world.rank == world.size - 1:  # any process can tell
            Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
