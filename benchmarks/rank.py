"""Rank classification beside the plain way, examples a second in one process, at the ``base`` shape.

    python benchmarks/rank.py --tokenizer DIR                            # prompts and answers of random pieces
    python benchmarks/rank.py --tokenizer DIR --templates DIR --data-root DIR    # and HellaSwag, RTE as they are

The plain way is the published one: the prompt is repeated for each of its answers and encoded as often, prompts are
padded together in the order in which they come, and the logits of every position go through a log-softmax. Both ways
score the same rows in turn with the same random weights; a ratio is the median over the rounds, each on fresh rows.
Largest difference: of a log-likelihood, relative, over all rounds.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from metro_t0 import MetroT0Config, MetroT0ForConditionalGeneration, MetroT0Tokenizer, load_templates, rank
from metro_t0.prompts.sources import data_root_file

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


def compare(name: str, by: Network, draw: Callable[[], Rows], rounds: int) -> None:
    """Prints one line: both speeds, their ratio, the largest difference, and how many predictions differ."""
    speeds: list[tuple[float, float]] = []
    difference, predictions, changed = 0.0, 0, 0
    for turn in range(rounds + 1):
        prompts, choices = draw()
        begun = time.perf_counter()
        plain = plainly(by, prompts, choices)
        between = time.perf_counter()
        fast = ours(by, prompts, choices)
        if turn:  # the first round warms up
            speeds.append((len(prompts) / (between - begun), len(prompts) / (time.perf_counter() - between)))
        for one, other in zip(plain, fast, strict=True):
            difference = max(
                difference, *(abs(a - b) / max(1.0, abs(a)) for a, b in zip(one, other, strict=True))
            )
            predictions += 1
            changed += one.index(max(one)) != other.index(max(other))
    plain_speed, fast_speed = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratio = statistics.median(fast / plain for plain, fast in speeds)
    print(
        f"{name:28} plain {plain_speed:7.2f} examples/s   rank {fast_speed:7.2f}   {ratio:5.2f} times   "
        f"largest difference {difference:.0e}   predictions that differ {changed} of {predictions}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--rows", type=int, default=16, help="prompts a round")
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    by = network(settings.tokenizer)
    rng = random.Random(0)
    print(f"base, fp32, {torch.get_num_threads()} threads, {settings.rows} prompts a round")
    for answers in (2, 4, 10):
        draw = lambda answers=answers: made_up(by, answers, settings.rows, rng)  # noqa: E731
        compare(f"{answers} answers, random pieces", by, draw, settings.rounds)
    if settings.templates and settings.data_root:
        for dataset, subset in (("hellaswag", None), ("super_glue", "rte")):
            prompts, choices = real(settings.templates, settings.data_root, dataset, subset)

            def draw(prompts: list[str] = prompts, choices: list[list[str]] = choices) -> Rows:
                drawn = rng.sample(range(len(prompts)), settings.rows)
                return [prompts[index] for index in drawn], [choices[index] for index in drawn]

            name = f"{dataset}{'/' + subset if subset else ''}, {len(choices[0])} answers"
            compare(name, by, draw, settings.rounds)


if __name__ == "__main__":
    main()
