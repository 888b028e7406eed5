"""Renders and tokenizes one unit of a build into a folder of its own; what a worker process does.

    counts = build_unit(UnitWork(unit, folder, Path("worker.pickle")))

The folder then holds ``train.arrow`` (or ``validation.arrow``), ``counts.json`` (by position of the template in its
task) and ``examples.jsonl``. What all units need, the tasks and the tokenizer, is read once a process.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metro_t0.data.encoding import token_dtype
from metro_t0.data.work import whole_piece
from metro_t0.prompts.build_plan import BuildSettings, Tokenizer, Unit
from metro_t0.prompts.rendering import NO_TOKENS, TOO_LONG, Counts, drop_reason, histogram
from metro_t0.prompts.tasks import Task

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES_A_TASK = 10
_BATCH_EXAMPLES = 4096


@dataclass(frozen=True)
class Workshop:
    """What all units of a build need."""

    tasks: tuple[Task, ...]
    tokenizer: Tokenizer
    settings: BuildSettings


@dataclass(frozen=True)
class UnitWork:
    """A unit, the folder to make for it, and the file of the :class:`Workshop`."""

    unit: Unit
    folder: Path
    workshop: Path

    def __str__(self) -> str:
        task, rows = open_workshop(self.workshop).tasks[self.unit.task], self.unit.indices
        return f"task {task.name!r} ({task.source(self.unit.part)}, rows {rows[0] + 1} to {rows[-1] + 1})"


@lru_cache(maxsize=1)
def open_workshop(path: Path) -> Workshop:
    """The workshop of a build, its templates compiled; once a process (and once for all forked from it)."""
    with path.open("rb") as stream:
        workshop: Workshop = pickle.load(stream)
    for task in workshop.tasks:
        for template in task.templates:
            template.check()
    return workshop


def build_unit(work: UnitWork) -> int:
    """Makes the unit's folder, whole or not at all.

    Returns:
        how many times a template was applied.

    Raises:
        ValueError: a row cannot be rendered (names source, row and template), or the disk is full.
    """
    workshop = open_workshop(work.workshop)
    try:
        with whole_piece(work.folder) as aside:
            _UnitWriter(work.unit, aside, workshop).run()
    except OSError as error:
        raise ValueError(f"cannot write {work.folder}: {error.strerror or error}") from error
    return work.unit.renderings(len(workshop.tasks[work.unit.task].templates))


def arrow_schema(vocabulary_size: int) -> pa.Schema:
    """The columns of a built mixture."""
    import pyarrow as pa

    tokens, number = pa.list_(pa.from_numpy_dtype(token_dtype(vocabulary_size))), pa.int32()
    return pa.schema({"input_ids": tokens, "labels": tokens, "task": number, "template": number})


class _UnitWriter:
    """Renders the rows of a unit, tokenizes them in batches, writes and counts them."""

    def __init__(self, unit: Unit, folder: Path, workshop: Workshop) -> None:
        self._unit, self._folder, self._settings = unit, folder, workshop.settings
        self._task = workshop.tasks[unit.task]
        self._tokenizer = workshop.tokenizer
        # A transformers tokenizer looks these up anew each time it is asked.
        self._bos, self._eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        self._schema = arrow_schema(len(self._tokenizer))
        self._dtype = token_dtype(len(self._tokenizer))
        self.counts = [Counts() for _ in self._task.templates]
        self._texts: list[str] = []
        self._templates: list[int] = []
        self._shown: list[dict[str, Any]] = []
        self._more: list[dict[str, Any]] = []

    def run(self) -> None:
        """Makes the files of the unit."""
        import pyarrow as pa

        with pa.ipc.new_stream(str(self._folder / f"{self._unit.split}.arrow"), self._schema) as self._stream:
            for place, (index, row) in enumerate(zip(self._unit.indices, self._unit.rows, strict=True)):
                self._render(place, index, row)
                if len(self._templates) >= _BATCH_EXAMPLES:
                    self._flush()
            self._flush()
        content = json.dumps([counts.as_json() for counts in self.counts])
        (self._folder / "counts.json").write_text(content, encoding="utf-8")
        shown = (self._shown + self._more)[:EXAMPLES_A_TASK]
        lines = "".join(json.dumps(example, ensure_ascii=False) + "\n" for example in shown)
        (self._folder / "examples.jsonl").write_text(lines, encoding="utf-8", errors="surrogatepass")

    def _render(self, place: int, index: int, row: dict[str, Any]) -> None:
        unit, task, settings = self._unit, self._task, self._settings
        for number, template in enumerate(task.templates):
            if unit.chosen is not None and not unit.chosen[place, number]:
                continue
            rendered = task.render(template, row, index, unit.part, settings.seed)
            counts = self.counts[number]
            counts.rows += 1
            reason = drop_reason(rendered, settings.check_choices)
            if reason is not None:
                counts.dropped[reason] += 1
                continue
            self._texts += (rendered.input, rendered.target)
            self._templates.append(number)
            # One template after the other, so that the few examples show as many as can be.
            of_turn = place % len(task.templates) == number
            chosen = self._shown if of_turn else self._more
            if len(chosen) < EXAMPLES_A_TASK:
                chosen.append(
                    {
                        "task": task.name,
                        "template": template.name,
                        "row": index + 1,
                        "input": rendered.input,
                        "target": rendered.target,
                        "choices": rendered.answer_choices,
                    }
                )

    def _flush(self) -> None:
        """Tokenizes and writes what waits."""
        import pyarrow as pa

        templates = np.array(self._templates, np.int32)
        tokens, starts, lengths = self._encoded()
        self._texts, self._templates = [], []
        kept = self._kept(templates, lengths)
        templates, starts, lengths = templates[kept], starts[kept], lengths[kept]
        self._count(templates, lengths)
        if not len(templates):
            return
        taken = np.minimum(lengths, self._most())
        columns = [
            self._framed(tokens, starts[:, 0], taken[:, 0], begin=True),
            self._framed(tokens, starts[:, 1], taken[:, 1], begin=False),
            pa.array(np.full(len(templates), self._unit.task, np.int32)),
            pa.array(templates + self._unit.first_template, pa.int32()),
        ]
        self._stream.write_batch(pa.record_batch(columns, schema=self._schema))

    def _encoded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All tokens, where those of each input and target start, and how many: ``[tokens]``, twice ``[examples, 2]``.

        Whitespace is collapsed first. Answers repeat, and so do some prompts: each text is tokenized once a batch.
        """
        places: dict[str, int] = {}
        numbers = np.fromiter(
            (places.setdefault(" ".join(text.split()), len(places)) for text in self._texts),
            np.int64,
            len(self._texts),
        ).reshape(-1, 2)
        encoded = self._tokenizer.encode_texts(list(places)) if places else []
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        tokens = np.fromiter(chain.from_iterable(encoded), self._dtype, int(lengths.sum()))
        starts = np.cumsum(lengths) - lengths
        return tokens, starts[numbers], lengths[numbers]

    def _kept(self, templates: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Which examples are kept, ``[examples]`` bool; the others are counted."""
        kept = lengths[:, 1] > 0
        self._drop(templates[~kept], NO_TOKENS)
        if self._settings.drop_long:
            fits = (lengths <= self._most()).all(axis=1)
            self._drop(templates[kept & ~fits], TOO_LONG)
            kept &= fits
        return kept

    def _most(self) -> np.ndarray:
        """The most tokens of an input and of a target, specials aside."""
        return np.array([self._settings.max_input_length - 2, self._settings.max_target_length - 1])

    def _drop(self, templates: np.ndarray, reason: str) -> None:
        for template in templates.tolist():
            self.counts[template].dropped[reason] += 1

    def _count(self, templates: np.ndarray, lengths: np.ndarray) -> None:
        for number in np.unique(templates):
            counts = self.counts[number]
            of_template = lengths[templates == number]
            cut = (of_template > self._most()).sum(axis=0)
            tokens = np.minimum(of_template, self._most()).sum(axis=0) + len(of_template) * np.array([2, 1])
            counts.add(
                Counts(
                    examples=len(of_template),
                    input_tokens=int(tokens[0]),
                    target_tokens=int(tokens[1]),
                    truncated_inputs=int(cut[0]),
                    truncated_targets=int(cut[1]),
                    input_histogram=histogram(of_template[:, 0] + 2),
                    target_histogram=histogram(of_template[:, 1] + 1),
                )
            )

    def _framed(self, tokens: np.ndarray, starts: np.ndarray, taken: np.ndarray, *, begin: bool) -> pa.Array:
        """Stretches of the tokens with ``</s>`` behind each, and ``<s>`` before it if wanted, as lists."""
        import pyarrow as pa

        lengths = taken + 1 + begin
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        framed = np.full(offsets[-1], self._eos, self._dtype)
        within = np.arange(int(taken.sum())) - np.repeat(np.cumsum(taken) - taken, taken)
        framed[np.repeat(offsets[:-1] + begin, taken) + within] = tokens[np.repeat(starts, taken) + within]
        if begin:
            framed[offsets[:-1]] = self._bos
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(framed))
