"""Docstrings become prose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metro_t0.data.docstring_text import plain_text


def test_joins_the_lines_of_a_paragraph_only() -> None:
    text = plain_text(
        """Summary line.

        This paragraph was wrapped by its author at a width of eighty or so
        characters and goes on here.
        A short line.
        Another line.
        """
    )
    assert text.splitlines() == [
        "Summary line.",
        "",
        "This paragraph was wrapped by its author at a width of eighty or so characters and goes on here.",
        "A short line.",
        "Another line.",
    ]


def test_joins_parameters_with_their_continuation() -> None:
    text = plain_text(
        """
        Args:
            width (int, *optional*, defaults to 3):
                How wide the frame around the picture is drawn, in pixels of
                the screen.
            height (int): How high the frame around the picture is drawn, in
                pixels too.
            other: Short.
        """
    )
    assert text.splitlines() == [
        "Args:",
        "    width (int, *optional*, defaults to 3): How wide the frame around the picture is drawn, "
        "in pixels of the screen.",
        "    height (int): How high the frame around the picture is drawn, in pixels too.",
        "    other: Short.",
    ]


def test_leaves_code_and_markup_out() -> None:
    text = plain_text(
        """Uses :class:`~package.Widget` and ``None``; see `the guide <https://example.org>`_.

        Title
        -----
        >>> code()
        output

        As follows::

            more = code()

        .. code-block:: python

            more = code()

        ```python
        even_more()
        ```
        The [last](https://example.org/last) line.
        """
    )
    assert text == ("Uses package.Widget and None; see the guide.\n\nTitle\n\nAs follows:\n\nThe last line.")


@given(st.text(alphabet=st.sampled_from("ab :`-.>\n\t~(["), max_size=200))
def test_any_text_gives_clean_lines(docstring: str) -> None:
    lines = plain_text(docstring).splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert all(lines[index] or lines[index + 1] for index in range(len(lines) - 1))
