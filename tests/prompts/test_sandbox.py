"""What templates from strangers may not do."""

from __future__ import annotations

import random

import pytest
from jinja2.exceptions import SecurityError

from metro_t0.prompts.sandbox import Draws
from metro_t0.prompts.template import Template


@pytest.mark.parametrize(
    "jinja",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ items.append(1) }}",
        "{{ items.clear() }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{{ ('x' * 10 ** 8) }}",
        "{{ (10 ** 8 * 'x') }}",
        "{{ ([0] * 10 ** 7) }}",
        "{{ (9 ** 9 ** 9) }}",
        "{{ ('%999999999d' % 1) }}",
        "{{ ('%*d' % (999999999, 1)) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 999999999) }}",
        "{{ 'x'.ljust(10 ** 9) }}",
        "{{ 'x'.center(width) }}",
        "{{ 'x' | center(10 ** 9) }}",
        "{{ 'x' | indent(10 ** 9, true) }}",
        "{{ items | batch(10 ** 9, 'x') | list }}",
    ],
)
def test_hostile_template_is_refused(jinja: str) -> None:
    items = [1, 2]
    with pytest.raises(ValueError, match="cannot be rendered") as error:
        Template("t", "t", jinja + " ||| x").apply({"items": items, "width": 10**9})
    assert isinstance(error.value.__cause__, (SecurityError, OverflowError))
    assert items == [1, 2]


@pytest.mark.parametrize(
    ("jinja", "message"),
    [
        (
            "{% for i in range(9999) %}{% for j in range(9999) %}text{% endfor %}{% endfor %}",
            "prints more than",
        ),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
    ],
)
def test_other_ways_out_are_closed(jinja: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Template("t", "t", jinja + " ||| x").apply({})


@pytest.mark.parametrize("jinja", ["{{ a.__init__ }}", "{{ ''|attr('__class__') }}", "{{ zip.__self__ }}"])
def test_private_attributes_read_as_empty(jinja: str) -> None:
    assert Template("t", "t", jinja + " ||| x").apply({"a": "a"}).input == ""


@pytest.mark.parametrize(
    ("jinja", "expected"),
    [
        ("{{ ('-' * 3) }}", "---"),
        ("{{ ([1] * 2) }}", "[1, 1]"),
        ("{{ (3 * number) }}", "7500000000"),
        ("{{ (2 ** 10) }}", "1024"),
        ("{{ (7 % 4) }}", "3"),
        ("{{ ('%s of %05d' % ('a', 12)) }}", "a of 00012"),
        ("{{ '%s-%s' | format('a', 'b') }}", "a-b"),
        ("{{ '{:,}'.format(number) }}", "2,500,000,000"),
        ("{{ '{0}:{1:>4}'.format('a', 'b') }}", "a:   b"),
        ("{{ 'x'.rjust(4, '.') }}", "...x"),
        ("{{ 'x' | center(3) }}|", "x |"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ [1, 2, 3] | batch(2, 0) | list }}", "[[1, 2], [3, 0]]"),
        ("{{ [1, 2, 3] | slice(2) | map('list') | list }}", "[[1, 2], [3]]"),
        ("{{ namespace(a=1).a }} {{ dict(b=2).b }} {{ range(3) | list }}", "1 2 [0, 1, 2]"),
    ],
)
def test_ordinary_expressions_work(jinja: str, expected: str) -> None:
    assert Template("t", "t", jinja + " ||| x").apply({"number": 2_500_000_000}).input == expected


def test_seed_zero_draws_as_the_global_generator_does() -> None:
    items = list(range(1000))
    draws = Draws(0)
    reference = random.Random(0)
    assert [draws.choice(items) for _ in range(5)] == [reference.choice(items) for _ in range(5)]
    with pytest.raises(IndexError):
        draws.choice([])
