"""The course of an evaluation: what is asked, what failed, and the ranking of one task after the other.

    course = Course.begin(suite, settings, say)          # every task as questions, or a failure
    predictions = course.rank(folder, rank, calibrated=False, processes=processes, console=console)
    course.failures                                      # task -> why

A task that fails is named at once and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metro_t0.evaluation.predictions import Prediction, TemplatePredictions
from metro_t0.evaluation.questions import Questions, TaskQuestions, add_shots, ask
from metro_t0.evaluation.ranking.rank import RankResult, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from metro_t0.evaluation.evaluation_folder import EvaluationFolder
    from metro_t0.evaluation.ranking.processes import Processes
    from metro_t0.evaluation.suite_file import Suite

# Fewer prompts than this are ranked together with those of the task's next template: enough of them for batches of like
# length, and little is lost when the process is killed.
_PROMPTS_AT_ONCE = 2048

Ranker = Callable[[Sequence[str], Sequence[Sequence[str]], Callable[[int], None]], list[RankResult]]
Predictions = dict[tuple[str, str], TemplatePredictions]
"""By task and template."""


@dataclass
class Course:
    """See this module's first lines.

    Attributes:
        asked: the tasks that have not failed.
        failures: each other task -> why.
        say: hears of what fails and of what was done before.
    """

    asked: list[TaskQuestions]
    say: Callable[[str], None]
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, suite: Suite, *, limit: int | None, seed: int, say: Callable[[str], None]) -> Course:
        """All tasks of a suite as questions.

        Raises:
            ValueError: no task can be asked; why the first cannot.
        """
        course = cls([], say)
        first: ValueError | None = None
        for task in suite.tasks:
            try:
                course.asked.append(ask(task, limit=limit, seed=seed))
            except ValueError as error:
                first = first or error
                if len(suite.tasks) > 1:
                    course.fail(task.name, error)
        if not course.asked and first is not None:
            raise first
        return course

    def fail(self, task: str, error: Exception) -> None:
        """Leaves a task out from here on."""
        reason = " ".join(str(error).split()) or type(error).__name__
        self.failures[task] = reason
        self.asked = [one for one in self.asked if one.task.name != task]
        self.say(f"{task} failed, the others go on: {reason}")

    def guard(self, task: str, error: Exception) -> None:
        """As :meth:`fail`; but the error of the last task left is raised when no other has been of use.

        Raises:
            Exception: ``error``.
        """
        if len(self.asked) == 1 and self.asked[0].task.name == task and not self.failures:
            raise error
        self.fail(task, error)

    def add_shots(self, count: int, *, fits: Callable[[str], bool], seed: int) -> None:
        """Solved examples before all questions, see :func:`~metro_t0.evaluation.questions.add_shots`."""
        for one in list(self.asked):
            try:
                add_shots(one, count, fits=fits, seed=seed)
            except ValueError as error:
                self.guard(one.task.name, error)

    def rank(
        self,
        folder: EvaluationFolder | None,
        rank: Ranker,
        *,
        calibrated: bool,
        processes: Processes,
        console: Console | None,
    ) -> Predictions:
        """Predictions of every template of every task that does not fail, those of an earlier call included.

        Args:
            folder: where they are kept; None on processes that are not the main one.
            rank: ranks rows, on all processes together.
            calibrated: whether answers are also scored after the empty prompt.
            processes: all of them call this.
            console: shows a progress bar there; silent without.
        """
        done = processes.broadcast(self._done_before(folder))
        total = sum(len(questions.prompts) for one in self.asked for questions in one.questions)
        before = sum(len(found.items) for found in done.values())
        if before:
            self.say(f"going on: {before:,} of {total:,} prompts were ranked before")
        with progress_bar(console, total, "Ranking answers") as advance:
            advance(before)
            for one in list(self.asked):
                name = one.task.name
                waiting = [q for q in one.questions if (name, q.template) not in done]
                try:
                    for group in _groups(waiting):
                        for predicted in _rank_group(name, group, rank, calibrated, advance):
                            if folder is not None:
                                folder.add(predicted)
                            done[name, predicted.template] = predicted
                except (ValueError, RuntimeError) as error:
                    self.guard(name, error)
        return {key: found for key, found in done.items() if key[0] not in self.failures}

    def _done_before(self, folder: EvaluationFolder | None) -> Predictions:
        found: Predictions = {}
        for one in self.asked if folder is not None else ():
            for questions in one.questions:
                assert folder is not None
                predictions = folder.predictions(one.task.name, questions.template)
                if predictions is not None:
                    found[one.task.name, questions.template] = predictions
        return found


def _groups(questions: Sequence[Questions]) -> Iterator[list[Questions]]:
    group: list[Questions] = []
    for one in questions:
        group.append(one)
        if sum(len(member.prompts) for member in group) >= _PROMPTS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _rank_group(
    task: str, group: Sequence[Questions], rank: Ranker, calibrated: bool, advance: Callable[[int], None]
) -> Iterator[TemplatePredictions]:
    """Ranks some templates of a task together."""
    start = time.perf_counter()
    results = iter(
        rank(
            [prompt for one in group for prompt in one.prompts],
            [choices for one in group for choices in one.choices],
            advance,
        )
    )
    unprompted: dict[str, float] = {}
    if calibrated:
        answers = list(
            dict.fromkeys(answer for one in group for choices in one.choices for answer in choices)
        )
        (alone,) = rank([""], [answers], lambda rows: None)
        unprompted = dict(zip(answers, alone.log_likelihoods, strict=True))
    seconds = (time.perf_counter() - start) / sum(len(one.prompts) for one in group)
    for one in group:
        items = [
            Prediction(
                row,
                prompt,
                choices,
                result.log_likelihoods,
                result.lengths,
                result.prediction,
                gold,
                [unprompted[answer] for answer in choices] if calibrated else None,
                result.prompt_truncated,
            )
            for row, prompt, choices, gold, result in zip(
                one.rows, one.prompts, one.choices, one.golds, results, strict=False
            )
        ]
        yield TemplatePredictions(task, one.template, items, dict(one.dropped), seconds * len(items))
