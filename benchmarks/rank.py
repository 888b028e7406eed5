"""Rank classification beside the plain way, examples a second in one process, at the ``base`` shape.

    python benchmarks/rank.py --tokenizer DIR                            # prompts and answers of random pieces
    python benchmarks/rank.py --tokenizer DIR --templates DIR --data-root DIR    # and HellaSwag, RTE as they are
    python benchmarks/rank.py --tokenizer DIR --json benchmarks/results/rank.json

The plain way is the published one: the prompt is repeated for each of its answers and encoded as often, prompts are
padded together in the order in which they come, and the logits of every position go through a log-softmax. Both ways
score the same rows in turn with the same random weights; a ratio is the median over the rounds, each on fresh rows. It
is of time on the clock; beside it the ratio of the CPU time, which other work on the machine disturbs less. Largest
difference: of a log-likelihood, relative, over all rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from metro_t0 import MetroT0Config, MetroT0ForConditionalGeneration, MetroT0Tokenizer, load_templates, rank
from metro_t0.prompts.sources import data_root_file
from metro_t0.training.run_directory import environment

BATCH_PROMPTS = 4
Rows = tuple[list[str], list[list[str]]]


@dataclass(frozen=True)
class Network:
    """What both ways score with."""

    model: MetroT0ForConditionalGeneration
    tokenizer: MetroT0Tokenizer


def network(tokenizer: Path) -> Network:
    torch.manual_seed(0)
    vocabulary = MetroT0Tokenizer.from_pretrained(str(tokenizer))
    model = MetroT0ForConditionalGeneration(MetroT0Config(vocab_size=len(vocabulary))).eval()
    with torch.no_grad():
        # Logits of a few units, so that a loss of precision shows.
        model.get_input_embeddings().weight.normal_(0, 0.11)
    return Network(model, vocabulary)


@torch.no_grad()
def plainly(by: Network, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[list[float]]:
    scores: list[list[float]] = []
    for start in range(0, len(prompts), BATCH_PROMPTS):
        batch = choices[start : start + BATCH_PROMPTS]
        repeated = [
            prompt
            for prompt, row in zip(prompts[start : start + BATCH_PROMPTS], batch, strict=True)
            for _ in row
        ]
        inputs = by.tokenizer(repeated, padding=True, truncation=True, max_length=512, return_tensors="pt")
        answers = [torch.tensor(by.tokenizer(answer).input_ids[1:]) for row in batch for answer in row]
        labels = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=-100)
        logits = by.model(**inputs, labels=labels).logits.float()
        likelihoods = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        sums = iter(likelihoods.masked_fill(labels < 0, 0).sum(-1).tolist())
        scores += [[next(sums) for _ in row] for row in batch]
    return scores


def ours(by: Network, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[list[float]]:
    return [
        result.log_likelihoods for result in rank(by.model, by.tokenizer, prompts=prompts, choices=choices)
    ]


def made_up(by: Network, answers: int, rows: int, rng: random.Random) -> Rows:
    """Prompts of 60 to 220 random pieces, answers of 2 to 9."""

    def text(low: int, high: int) -> str:
        ids = [rng.randrange(4, by.tokenizer.mask_id) for _ in range(rng.randint(low, high))]
        return by.tokenizer.decode(ids)

    return [text(60, 220) for _ in range(rows)], [[text(2, 9) for _ in range(answers)] for _ in range(rows)]


def real(templates: Path, data_root: Path, dataset: str, subset: str | None) -> Rows:
    """Every row of a dataset's validation rows under one template with answers to rank."""
    key = f"{dataset}/{subset}" if subset else dataset
    ranked = [
        template for template in load_templates(templates)[key].original_task if template.answer_choices
    ]
    rendered = [
        ranked[0].apply(row) for row in data_root_file(data_root, dataset, subset, "validation").rows(2000)
    ]
    return [one.input for one in rendered], [one.answer_choices or [] for one in rendered]


@dataclass(frozen=True)
class Measured:
    """Both ways on the same rows.

    Attributes:
        plain_per_second, rank_per_second: examples, medians over the rounds.
        times: how many times as fast the second is, the median of the rounds' ratios; ``cpu_times`` by CPU time.
        largest_difference: of a log-likelihood, relative.
        predictions, changed: how many there were, and how many of them differ.
    """

    plain_per_second: float
    rank_per_second: float
    times: float
    cpu_times: float
    largest_difference: float
    predictions: int
    changed: int


def timed(score: Callable[[], list[list[float]]]) -> tuple[list[list[float]], float, float]:
    """The scores, seconds on the clock and seconds of CPU time."""
    clock, cpu = time.perf_counter(), time.process_time()
    scores = score()
    return scores, time.perf_counter() - clock, time.process_time() - cpu


def compare(name: str, by: Network, draw: Callable[[], Rows], rounds: int) -> Measured:
    """Measures both ways and prints a line."""
    seconds: list[tuple[int, float, float, float, float]] = []
    difference, predictions, changed = 0.0, 0, 0
    for turn in range(rounds + 1):
        prompts, choices = draw()
        plain, plain_clock, plain_cpu = timed(partial(plainly, by, prompts, choices))
        fast, fast_clock, fast_cpu = timed(partial(ours, by, prompts, choices))
        if turn:  # the first round warms up
            seconds.append((len(prompts), plain_clock, plain_cpu, fast_clock, fast_cpu))
        for one, other in zip(plain, fast, strict=True):
            difference = max(
                difference, *(abs(a - b) / max(1.0, abs(a)) for a, b in zip(one, other, strict=True))
            )
            predictions += 1
            changed += one.index(max(one)) != other.index(max(other))
    measured = Measured(
        plain_per_second=statistics.median(rows / plain for rows, plain, _, _, _ in seconds),
        rank_per_second=statistics.median(rows / fast for rows, _, _, fast, _ in seconds),
        times=statistics.median(plain / fast for _, plain, _, fast, _ in seconds),
        cpu_times=statistics.median(plain / fast for _, _, plain, _, fast in seconds),
        largest_difference=difference,
        predictions=predictions,
        changed=changed,
    )
    print(
        f"{name:28} plain {measured.plain_per_second:7.2f} examples/s   rank {measured.rank_per_second:7.2f}   "
        f"{measured.times:5.2f} times ({measured.cpu_times:.2f} of CPU time)   largest difference {difference:.0e}   "
        f"predictions that differ {changed} of {predictions}",
        flush=True,
    )
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--rows", type=int, default=16, help="prompts a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    settings = parser.parse_args()
    found: dict[str, Measured] = {}
    by = network(settings.tokenizer)
    rng = random.Random(0)
    print(f"base, fp32, {torch.get_num_threads()} threads, {settings.rows} prompts a round")
    for answers in (2, 4, 10):
        draw = lambda answers=answers: made_up(by, answers, settings.rows, rng)  # noqa: E731
        name = f"{answers} answers, random pieces"
        found[name] = compare(name, by, draw, settings.rounds)
    if settings.templates and settings.data_root:
        for dataset, subset in (("hellaswag", None), ("super_glue", "rte")):
            prompts, choices = real(settings.templates, settings.data_root, dataset, subset)

            def draw(prompts: list[str] = prompts, choices: list[list[str]] = choices) -> Rows:
                drawn = rng.sample(range(len(prompts)), settings.rows)
                return [prompts[index] for index in drawn], [choices[index] for index in drawn]

            name = f"{dataset}{'/' + subset if subset else ''}, {len(choices[0])} answers"
            found[name] = compare(name, by, draw, settings.rounds)
    if settings.json:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "environment": environment(),
            "threads": torch.get_num_threads(),
            "shape": "base, fp32",
            "prompts_a_round": settings.rows,
            "rounds": settings.rounds,
            "measured": {name: asdict(measured) for name, measured in found.items()},
        }
        settings.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
