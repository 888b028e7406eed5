"""A task's rows as questions: golds, what is left out and why, solved examples in front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import write_lines

from metro_t0.evaluation.questions import add_shots, ask
from metro_t0.prompts.sources import LocalFile
from metro_t0.prompts.tasks import Task
from metro_t0.prompts.template import Template

ROWS: list[dict[str, Any]] = [{"text": f"text {n}", "label": n % 2} for n in range(6)]
PLAIN = Template("1", "plain", "{{ text }}? ||| {{ answer_choices[label] }}", "yes ||| no")


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., Task]:
    def make(
        *templates: Template, rows: list[dict[str, Any]] = ROWS, shots: list[dict[str, Any]] = ROWS
    ) -> Task:
        write_lines(tmp_path / "validation.jsonl", rows)
        write_lines(tmp_path / "dev.jsonl", shots)
        sources = {
            "evaluation": LocalFile(tmp_path / "validation.jsonl"),
            "shots": LocalFile(tmp_path / "dev.jsonl"),
        }
        return Task("it", "it", None, templates, **sources)

    return make


def test_questions_and_what_is_left_out(make_task: Callable[..., Task]) -> None:
    some = Template(
        "2", "some", "{% if label %}{{ text }} ||| {{ answer_choices[1] }}{% endif %}", "a ||| b ||| b"
    )
    open_ended = Template("3", "open", "{{ text }} ||| {{ label }}")
    asked = ask(make_task(PLAIN, some, open_ended), limit=5)
    plain, sometimes = asked.questions
    assert (asked.number_of_rows, plain.rows, plain.golds) == (5, [0, 1, 2, 3, 4], [0, 1, 0, 1, 0])
    assert plain.prompts[3] == "text 3?" and plain.choices[3] == ["yes", "no"]
    assert (sometimes.rows, sometimes.golds) == ([1, 3], [1, 1]), "of equal answers the first is correct"
    assert sometimes.dropped == {"empty": 3}
    assert asked.open_ended == [open_ended]


def test_checksums_tell_rows_and_templates_apart(make_task: Callable[..., Task]) -> None:
    first = ask(make_task(PLAIN))
    fewer = ask(make_task(PLAIN), limit=5)
    other = ask(make_task(replace(PLAIN, answer_choices="yes ||| never")))
    assert first.data_checksum != fewer.data_checksum and first.templates_checksum == fewer.templates_checksum
    assert first.data_checksum == other.data_checksum and first.templates_checksum != other.templates_checksum
    assert ask(make_task(PLAIN)).data_checksum == first.data_checksum


def test_shots_come_first_and_as_many_as_fit(make_task: Callable[..., Task]) -> None:
    shots = [{"text": f"solved {n}" + " very long" * 9 * (n == 2), "label": n % 2} for n in range(8)]
    asked = ask(make_task(PLAIN, shots=shots))
    add_shots(asked, 2, fits=lambda prompt: len(prompt) < 100)
    assert asked.questions[0].prompts[5] == "solved 0?\nyes\n\nsolved 1?\nno\n\ntext 5?"
    assert asked.questions[0].shots_left_out == 0
    asked = ask(make_task(PLAIN, shots=shots))
    add_shots(asked, 3, fits=lambda prompt: len(prompt) < 100)
    assert asked.questions[0].prompts[5] == "solved 0?\nyes\n\nsolved 1?\nno\n\ntext 5?"
    assert asked.questions[0].shots_left_out == 6
    asked = ask(make_task(PLAIN, shots=shots))
    add_shots(asked, 3, fits=lambda prompt: False)
    assert asked.questions[0].prompts == [f"text {n}?" for n in range(6)]


def test_mistakes(make_task: Callable[..., Task], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no rows to evaluate"):
        ask(make_task(PLAIN, rows=[]))
    with pytest.raises(
        ValueError, match=r"row 1: the answer 'maybe' is not among the choices \['yes', 'no'\]"
    ):
        ask(make_task(replace(PLAIN, jinja="{{ text }} ||| maybe")))
    many = replace(
        PLAIN, jinja="{{ text }} ||| maybe", answer_choices=" ||| ".join(f"c{n}" for n in range(500))
    )
    with pytest.raises(ValueError, match="'c7'\\] and 492 more; mend the template"):
        ask(make_task(many))
    with pytest.raises(ValueError, match=r"gives no example for any of the 6 rows: no target \(6\)"):
        ask(make_task(replace(PLAIN, jinja="{{ text }}")))
    with pytest.raises(ValueError, match="gives 6 solved examples, not 7: ask for fewer shots"):
        add_shots(ask(make_task(PLAIN)), 7, fits=lambda prompt: True)
    without = replace(make_task(PLAIN), shots=None)
    with pytest.raises(ValueError, match="no 'shots:' rows"):
        add_shots(ask(without), 1, fits=lambda prompt: True)
