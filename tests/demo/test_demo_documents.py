"""Docstrings taken apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metro_t0.data.docstring_text import plain_text
from metro_t0.data.pydocs import PydocEntry
from metro_t0.demo.documents import PydocDocument, content_words, name_parts, parse_entries, shorten

GOOGLE = """Reads a table from a file. Blank lines are left out of the table.

    The file is closed when the whole of it was read. Another sentence of prose.

    Args:
        path (str, *optional*): The path of the file that holds the table.
        width (int): How many columns the table
            has got. More text.
        raw: Short.

    Returns:
        The table.
    """
NUMPY = """Reads a table from a file.

    Parameters
    ----------
    path : str
        The path of the file that holds the table.
    width : int, optional

    Returns
    -------
    list
        The table.
    """


def _document(
    docstring: str, *, name: str = "read_table", kind: str = "function", signature: str | None = None
) -> PydocDocument | None:
    text = plain_text(docstring)
    entry = PydocEntry("somelibrary", "somelibrary.io", name, kind, text, signature)  # type: ignore[arg-type]
    documents = list(parse_entries([entry]))
    return documents[0] if documents else None


def test_takes_both_styles_of_docstrings_apart() -> None:
    google = _document(GOOGLE, name="Reader.read_table", signature="(path: str, width=3) -> list[str]")
    assert google is not None
    assert google.name == "read_table"
    assert google.summary == "Reads a table from a file."
    assert google.sentences == (
        "Blank lines are left out of the table.",
        "The file is closed when the whole of it was read.",
        "Another sentence of prose.",
    )
    assert google.parameters == (
        ("path", "The path of the file that holds the table."),
        ("width", "How many columns the table has got."),
    )
    assert google.result == "list"
    numpy = _document(NUMPY)
    assert numpy is not None
    assert numpy.parameters == (("path", "The path of the file that holds the table."),)
    assert numpy.sentences == () and numpy.result is None
    assert numpy.body(4) == "path: The path of ..."


def test_leaves_out_what_does_not_begin_with_a_sentence() -> None:
    assert _document("x = f(a, b) + c * d / e and much else, x[1:2] == y") is None
    assert _document("Too short.") is None


def test_equal_summaries_are_one_document_and_on_one_side() -> None:
    entries = [
        PydocEntry("a", "a", f"f{index}", "function", f"Reads the table number {word} from a file.", None)
        for index, word in enumerate(["one", "One", "two", "three", "four"])
    ]
    documents = list(parse_entries(entries))
    assert [document.name for document in documents] == ["f0", "f2", "f3", "f4"]
    alone = [next(parse_entries([entry])) for entry in entries]
    assert alone[0].side == alone[1].side


def test_words_of_names_and_texts() -> None:
    assert name_parts("read_CSVFile2Table") == {"read", "csv", "file", "2", "table"}
    assert content_words("The table's File, of CSV") == {"table's", "file"}


@given(st.text(max_size=200), st.integers(1, 20))
def test_shortened_texts_keep_their_first_words(text: str, words: int) -> None:
    shortened = shorten(text, words).split()
    assert shortened[:words] == text.split()[:words]
    assert len(shortened) <= words + 1
