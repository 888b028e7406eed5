"""The sandbox that templates are compiled in: they come from strangers, so nothing in them reaches Python.

>>> environment().from_string("{{ ['no', 'yes'][label] }}").render(label=1)
'yes'

Beside Jinja's own sandbox (no names with underscores, no changes to values) the plain ways to eat a machine
are refused: repetition and padding to huge widths, endless ranges. Time is not limited: a template that
nests loops over long texts is slow, and nothing here stops it.

Filters and globals beyond Jinja's own mean what they mean in promptsource v0.1.0
(``promptsource/templates.py``): ``choice`` (one item at random), ``most_frequent`` (the items that occur
most often), ``highlight`` (wraps text in a coloured HTML span), and ``zip``. Draws come from the row's own
generator, so that a rendering can be repeated.
"""

from __future__ import annotations

import functools
import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from jinja2 import StrictUndefined, pass_context, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SIZE = 100_000
"""Largest width, count or length of a repeated text (Jinja's own bound for ``range``)."""

MAX_OUTPUT = 1_000_000
"""Most characters that one template may render."""

DRAWS = "draws of this row"
"""Where the variables hold the row's :class:`Draws`: no template can write a name with spaces in it."""


class Choices(list[str]):
    """Answer choices of which a template may only use one that is there.

    Plain Jinja quietly gives nothing for a label beyond them, and the last one for -1, which often stands for "none".
    """

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and not 0 <= index < len(self):
            raise ValueError(
                f"it asks for answer choice {index} of {len(self)} (counted from 0): is the label out of range?"
            )
        if index is None or isinstance(index, (str, float)):
            raise ValueError(f"it asks for answer choice {index!r}, which is no whole number")
        return super().__getitem__(index)


_PLAIN_TYPES = frozenset({str, int, float, bool, list, dict, tuple, Choices})
_PADDING_METHODS = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs"})
_WIDE_FORMAT = re.compile(r"%[^A-Za-z%]*(?:\d{6,}|\*)")
_WIDE_FIELD = re.compile(r"\{[^{}]*:[^{}]*(?:\d{6,}|\{)")


class Draws:
    """The random generator of one rendering, made on its first draw (most templates never draw).

    Args:
        seed: An integer or a string. Seed 0 draws what promptsource draws after ``random.seed(0)``.
    """

    __slots__ = ("_generator", "_seed")

    def __init__(self, seed: int | str) -> None:
        self._seed = seed
        self._generator: random.Random | None = None

    def choice(self, items: Sequence[Any]) -> Any:
        """One item of ``items``; raises IndexError when there is none."""
        if self._generator is None:
            self._generator = random.Random(self._seed)
        return self._generator.choice(items)


class MissingColumn(StrictUndefined):
    """Stands for a column that is not there: any use but ``is defined`` raises UndefinedError."""

    # Without it, a list that is indexed by a missing label would quietly give nothing.
    __index__ = StrictUndefined.__int__


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with bounds on repetition, padding and counts."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read ``obj.attr``; Jinja's own answer, remembered for the plain types of rows."""
        kind: Any = type(obj)
        return (
            _is_safe_on(kind, attr) if kind in _PLAIN_TYPES else super().is_safe_attribute(obj, attr, value)
        )

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Computes ``left operator right``; raises SecurityError when the result would be huge."""
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(times, int) and hasattr(text, "__len__") and len(text) * times > MAX_SIZE:
                    raise SecurityError(f"a repetition makes more than {MAX_SIZE} items")
        elif operator == "**" and (abs(left) > MAX_SIZE or abs(right) > 100):
            raise SecurityError("a power is too large")
        elif operator == "%" and isinstance(left, str):
            _refuse_wide_format(left)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls ``__obj`` for a template; raises SecurityError when it would pad a text to a huge width.

        The first parameters have names that no keyword argument of a template can collide with.
        """
        name = getattr(__obj, "__name__", "")
        if name in _PADDING_METHODS:
            _refuse_large_numbers(args, kwargs)
        elif name in ("format", "format_map"):
            pattern = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", "")
            if _WIDE_FIELD.search(str(pattern)):
                raise SecurityError("a format pads to a huge width, or to one that is not written out")
        return super().call(__context, __obj, *args, **kwargs)


@functools.lru_cache(maxsize=1024)
def _is_safe_on(kind: type, attr: str) -> bool:
    # Jinja's answer looks at the type and the name only, but takes as long as the attribute's use.
    return ImmutableSandboxedEnvironment().is_safe_attribute(kind(), attr, None)


def _refuse_large_numbers(args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_SIZE:
            raise SecurityError(f"the argument {value} is beyond the bound of {MAX_SIZE}")


def _refuse_wide_format(pattern: str) -> None:
    if _WIDE_FORMAT.search(pattern):
        raise SecurityError("a format pads to a huge width, or to one that is not written out")


def _bounded(original: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, with arguments held to the bound (the filtered value itself may be any number)."""

    @functools.wraps(original)
    def bounded(value: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_large_numbers(args, kwargs)
        return original(value, *args, **kwargs)

    return bounded


def _highlight(text: str) -> str:
    return "<span style='color: #F08080'>" + text + "</span>"


def _most_frequent(items: Sequence[Hashable]) -> list[Hashable] | None:
    if not items:
        return None
    counts = Counter(items)
    most = max(counts.values())
    return [item for item, count in counts.items() if count == most]


@pass_context
def _choice(context: Context, items: Sequence[Any]) -> Any:
    draws: Draws = context[DRAWS]
    return draws.choice(items)


@pass_environment
def _format(environment: TemplateEnvironment, pattern: Any, *args: Any, **kwargs: Any) -> str:
    _refuse_wide_format(str(pattern))
    return str(pattern) % (kwargs or args)


@functools.cache
def environment() -> TemplateEnvironment:
    """The environment that all templates share; whitespace and undefined names as in plain Jinja."""
    env = TemplateEnvironment()
    for name in ("center", "indent", "batch", "slice"):
        env.filters[name] = _bounded(env.filters[name])
    env.filters.update(
        choice=_choice, random=_choice, most_frequent=_most_frequent, highlight=_highlight, format=_format
    )
    env.globals.update(zip=zip)
    # It draws words from a generator that no seed of ours reaches.
    del env.globals["lipsum"]
    return env


@functools.lru_cache(maxsize=256)
def compiled_expression(expression: str) -> Callable[..., Any]:
    """A Jinja expression as a function of its variables, which gives a Python value.

    Raises:
        jinja2.TemplateSyntaxError: it is no expression. The function raises jinja2.UndefinedError when it uses what is
        not there.
    """
    compiled = (
        environment().overlay(undefined=MissingColumn).compile_expression(expression, undefined_to_none=False)
    )

    def evaluate(**variables: Any) -> Any:
        value = compiled(**variables)
        if isinstance(value, MissingColumn):
            value._fail_with_undefined_error()
        return value

    return evaluate
