"""Rendering, tokenizing and building of real prompts: examples and megabytes a second on one core, and on two.

    METRO_T0_DATA=DIR python benchmarks/prompts.py
    python benchmarks/prompts.py --data-root TASKS --templates TEMPLATES --tokenizer FOLDER

Every dataset of the data root that has train rows and templates takes part with its first rows; templates that ask for
columns which are not there are left out. Rendering and tokenizing are measured in CPU time, building by the clock;
medians of several rounds. Rendering that compiles its template for every row stands beside rendering as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from metro_t0.prompts.mixture import Mixture
from metro_t0.prompts.sources import LocalFile, Row, data_root_file
from metro_t0.prompts.tasks import Task
from metro_t0.prompts.template import Template, load_templates
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

# Compiling takes so long that some rows tell enough.
_COMPILED_RENDERINGS = 300


@dataclass(frozen=True)
class Prompts:
    """Rows of a dataset under the templates that they suit."""

    task: Task
    rows: list[Row]

    def render(self, template: Template, index: int) -> list[str]:
        rendered = self.task.render(template, self.rows[index], index, "train")
        return [rendered.input, rendered.target]


def read_prompts(data_root: Path, templates: Path, rows: int) -> list[Prompts]:
    """The datasets of the data root that templates are there for."""
    found = []
    for key, of_dataset in load_templates(templates).items():
        dataset, _, subset = key.partition("/")
        try:
            source = data_root_file(data_root, dataset, subset or None, "train")
        except ValueError:
            continue
        task = Task(key, dataset, subset or None, tuple(of_dataset.values()), train=source)
        sample = list(task.rows("train", limit=rows))
        suited = tuple(template for template in task.templates if template.columns <= sample[0].keys())
        if suited:
            found.append(Prompts(replace(task, templates=suited), sample))
    if not found:
        raise SystemExit(f"{data_root} holds no train rows that {templates} has templates for")
    return found


def render_all(prompts: list[Prompts]) -> list[str]:
    return [
        text
        for one in prompts
        for template in one.task.templates
        for index in range(len(one.rows))
        for text in one.render(template, index)
    ]


def render_compiling(prompts: list[Prompts]) -> int:
    """Renders with a new copy of the template for every row, some for each dataset; gives how many."""
    wanted = max(1, _COMPILED_RENDERINGS // len(prompts))
    for one in prompts:
        for number in range(wanted):
            template = one.task.templates[number % len(one.task.templates)]
            one.render(replace(template), number % len(one.rows))
    return wanted * len(prompts)


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    begun = clock()
    work()
    return clock() - begun


def build_rates(
    prompts: list[Prompts], tokenizer: MetroT0Tokenizer, rounds: int
) -> tuple[dict[str, float], int]:
    """Examples a second of building with one process and with two, in turn; and how many examples."""
    rates: dict[str, list[float]] = {"1": [], "2": []}
    with tempfile.TemporaryDirectory() as folder:
        tasks = []
        for number, one in enumerate(prompts):
            path = Path(folder) / f"{number}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in one.rows), encoding="utf-8")
            tasks.append(replace(one.task, train=LocalFile(path)))
        mixture = Mixture("benchmark", tuple(tasks), check_choices=False, validation_fraction=0)
        for turn in range(rounds):
            for processes, measured in rates.items():
                out = Path(folder) / f"built-{turn}-{processes}"
                begun = time.perf_counter()
                data = mixture.build(tokenizer, out, processes=int(processes))
                measured.append(len(data.train) / (time.perf_counter() - begun))
    return {name: statistics.median(measured) for name, measured in rates.items()}, len(data.train)


def measure(prompts: list[Prompts], tokenizer: MetroT0Tokenizer, rounds: int) -> dict[str, object]:
    texts = render_all(prompts)
    distinct = list(dict.fromkeys(texts))
    megabytes = sum(len(text.encode("utf-8", "replace")) for text in distinct) / 1e6
    tokenizer.encode_texts(distinct[:100])
    examples = len(texts) // 2
    rendering = [examples / seconds(lambda: render_all(prompts)) for _ in range(rounds)]
    compiling = []
    for _ in range(rounds):
        begun = time.process_time()
        compiling.append(render_compiling(prompts) / (time.process_time() - begun))
    tokenizing = [megabytes / seconds(lambda: tokenizer.encode_texts(distinct)) for _ in range(rounds)]
    building, built = build_rates(prompts, tokenizer, rounds)
    return {
        "datasets": len(prompts),
        "templates": sum(len(one.task.templates) for one in prompts),
        "examples": built,
        "rendered_a_second": statistics.median(rendering),
        "rendered_a_second_compiling": statistics.median(compiling),
        "tokenized_megabytes_a_second": statistics.median(tokenizing),
        "built_a_second": building,
    }


def arguments() -> argparse.Namespace:
    data = os.environ.get("METRO_T0_DATA")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, place in (("data-root", "tasks"), ("templates", "promptsource_templates")):
        default = Path(data) / place if data else None
        parser.add_argument(f"--{name}", type=Path, default=default, required=data is None)
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer", required=data is None)
    parser.add_argument("--rows", type=int, default=500, help="rows of each dataset (500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of (5)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.tokenizer is None:
        vocabulary = Path(os.environ["METRO_T0_DATA"]) / "vocab" / "vocab_32k"
        tokenizer = MetroT0Tokenizer(str(vocabulary / "sp.model"), str(vocabulary / "dict.txt"))
    else:
        tokenizer = MetroT0Tokenizer.from_pretrained(str(given.tokenizer))
    figures = measure(read_prompts(given.data_root, given.templates, given.rows), tokenizer, given.rounds)
    print(
        f"{figures['datasets']} datasets, {figures['templates']} templates, {figures['examples']:,} examples; "
        "a core and second:\n"
        f"rendering   {figures['rendered_a_second']:10,.0f} examples\n"
        f"  compiling every time {figures['rendered_a_second_compiling']:,.0f} examples\n"
        f"tokenizing  {figures['tokenized_megabytes_a_second']:10.1f} MB\n"
        "building, a second:"
    )
    for processes, rate in figures["built_a_second"].items():  # type: ignore[attr-defined]
        print(f"  {processes} process{'es' if processes != '1' else '  '}{rate:10,.0f} examples")
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
