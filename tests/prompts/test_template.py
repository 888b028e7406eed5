"""The template reader and its semantics, on templates of our own."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0 import load_templates
from metro_t0.prompts.template import MAX_VARIABLE_LENGTH, Template, load_template_file

FILE = """\
dataset: harbour
subset: small
templates:
  7c1e: !Template
    answer_choices: calm ||| rough
    id: 7c1e
    jinja: "{{text}}\\nHow is the sea? ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      metrics:
      - Accuracy
      original_task: true
    name: how is the sea
    reference: our own
  9d2f: !Template
    answer_choices: null
    id: 9d2f
    jinja: 'Write on: {{ text }} ||| {{ rest }}'
    metadata: !TemplateMetadata
      original_task: false
    name: go on
    reference: ''
  0abc:
    jinja: 'Tell. ||| {{ rest }}'
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in ("harbour/small", "harbour/large", "lone"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "templates.yaml").write_text(FILE, encoding="utf-8")
    return tmp_path


def render(jinja: str, answer_choices: str | None = None, **row: object) -> tuple[str, str, list[str] | None]:
    rendered = Template("t", "t", jinja, answer_choices).apply(row)
    return rendered.input, rendered.target, rendered.answer_choices


def test_folder_is_read_by_dataset_and_subset(folder: Path) -> None:
    templates = load_templates(folder)
    assert list(templates) == ["harbour/large", "harbour/small", "lone"]
    small = templates["harbour/small"]
    assert (small.dataset, small.subset) == ("harbour", "small")
    assert list(small) == ["0abc", "go on", "how is the sea"]
    assert templates["harbour/small"] is small
    template = small["how is the sea"]
    assert template.id == "7c1e"
    assert template.reference == "our own"
    assert template.metadata.original_task is True
    assert template.metadata.choices_in_prompt is False
    assert template.metadata.metrics == ("Accuracy",)
    assert template.metadata.languages == ()
    assert small.original_task == [template]
    assert template.origin.endswith("harbour/small/templates.yaml:4")
    rendered = template.apply({"text": "Waves.", "label": 1})
    assert (rendered.input, rendered.target) == ("Waves.\nHow is the sea?", "rough")
    assert rendered.answer_choices == ["calm", "rough"]
    assert small["go on"].apply({"text": "a", "rest": "b"}).answer_choices is None


def test_unknown_names_are_told_the_nearest(folder: Path) -> None:
    templates = load_templates(folder)
    with pytest.raises(KeyError, match="did you mean 'harbour/small'"):
        templates["harbor/small"]
    with pytest.raises(KeyError, match="did you mean 'go on'"):
        templates["lone"]["goon"]


def test_folder_without_templates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_templates(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no"):
        load_templates(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: x\n", "no 'templates:' mapping"),
        ("- x\n", "no 'templates:' mapping"),
        ("templates: {a: 3}\n", r":1: template 'a' is not a mapping"),
        ("templates:\n  a: !Template\n    name: n\n", r":2: template 'n' has no text under 'jinja:'"),
        ("templates:\n  a: {jinja: x, answer_choices: no}\n", "must be one quoted text"),
        ("templates:\n  a: {jinja: x\n", "is not valid YAML"),
        ("templates:\n  a: !!python/object:os.system {}\n", "is not valid YAML"),
        ("templates:\n  a: {jinja: x, metadata: 3}\n", "'metadata:' is not a mapping"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_template_file(path)
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_file_that_is_not_utf8_or_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("templates: {é: 1}".encode("latin-1"))
    with pytest.raises(ValueError, match=r"mine\.yaml: is not UTF-8"):
        load_template_file(path)
    with pytest.raises(ValueError, match=r"other\.yaml: cannot be read"):
        load_template_file(tmp_path / "other.yaml")


def test_broken_jinja_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("templates:\n  a:\n    jinja: |\n      fine\n      {% if %} ||| b\n", encoding="utf-8")
    template = load_template_file(path, key="boats")["a"]
    with pytest.raises(
        ValueError, match=r"mine\.yaml:3: template 'a' of boats: line 2 of its jinja is not valid"
    ):
        template.check()
    with pytest.raises(ValueError, match="line 1 of its answer_choices"):
        Template("a", "a", "x ||| y", "{{ }").check()


def test_parts_are_stripped_and_counted() -> None:
    assert render("  {{ a }}\n\n|||\n {{ b }} ", a="x", b="y")[:2] == ("x", "y")
    template = Template("t", "t", "{% if keep %}{{ a }} ||| b{% endif %}")
    skipped = template.apply({"keep": False, "a": "x"})
    assert (skipped.input, skipped.target, skipped.num_parts) == ("", "", 1)
    assert template.apply({"keep": True, "a": "x"}).num_parts == 2
    many = Template("t", "t", "a ||| b ||| c").apply({})
    assert (many.input, many.target, many.num_parts) == ("a", "b", 3)


def test_answer_choices_follow_the_row() -> None:
    given_input, target, choices = render(
        "Pick: {{ answer_choices | join(', ') }} ||| {{ answer_choices[label] }}",
        "{{ options | join('|||') }}",
        options=["red ", "blue"],
        label=1,
    )
    assert given_input == "Pick: red, blue"
    assert target == "blue"
    assert choices == ["red", "blue"]


def test_fixed_answer_choices_are_known_without_a_row() -> None:
    assert Template("t", "t", "a", " yes ||| no ").fixed_answer_choices == ("yes", "no")
    assert Template("t", "t", "a", "{{ x }} ||| no").fixed_answer_choices is None
    assert Template("t", "t", "a", "{{ [1, 2] | choice }} ||| no").fixed_answer_choices is None
    assert Template("t", "t", "a").fixed_answer_choices is None
    fixed = Template("t", "t", "a ||| {{ answer_choices[0] }}", "yes ||| no")
    first = fixed.apply({}).answer_choices
    assert first is not None
    first.append("spoiled")
    assert fixed.apply({}).answer_choices == ["yes", "no"]


def test_filters_of_promptsource() -> None:
    assert (
        render("{{ items | most_frequent | join(',') }} ||| x", items=["b", "a", "b", "a", "c"])[0] == "b,a"
    )
    assert render("{{ items | most_frequent }} ||| x", items=[])[0] == "None"
    assert render("{{ a | highlight }} ||| x", a="w")[0] == "<span style='color: #F08080'>w</span>"
    assert render("{% for i, j in zip(a, b) %}{{ i }}{{ j }} {% endfor %}||| x", a="ab", b="cd")[0] == "ac bd"


def test_hyphens_become_underscores() -> None:
    assert render("{{ label_coarse }} ||| x", **{"label-coarse": 3})[0] == "3"


def test_variables_are_strings_when_printed_and_the_filter_binds_to_the_last_operand() -> None:
    assert render("{{ a }} {{ b }} ||| {{ c }}", a=None, b=[1, "x"], c=1.5)[:2] == ("None [1, 'x']", "1.5")
    long = "w" * (MAX_VARIABLE_LENGTH + 100)
    assert len(render("{{ a if yes else b }} ||| x", a=long, b=long, yes=True)[0]) == len(long)
    assert len(render("{{ a if yes else b }} ||| x", a=long, b=long, yes=False)[0]) == MAX_VARIABLE_LENGTH


def test_fixed_text_is_not_truncated() -> None:
    text = "word " * 1000
    assert render(text + "{{ a }} ||| x", a="end")[0] == text + "end"


def truncated(text: str) -> str:
    """What jinja's ``truncate(2048)`` gives: up to five characters too many are let through."""
    if len(text) <= 2048 + 5:
        return text
    head = text[:2045]
    return (head[: head.rindex(" ")] if " " in head else head) + "..."


@given(st.text(alphabet="ab \n", max_size=30), st.integers(2030, 2070), st.text(alphabet="xy ", max_size=40))
def test_truncation(head: str, filler: int, tail: str) -> None:
    text = head + "m" * filler + tail
    expected = truncated(text)
    assert render("<{{ text }}> ||| {{ text }}", text=text)[:2] == (f"<{expected}>", expected.strip())


@given(st.lists(st.sampled_from(["|", "||", "|||", "a", " ", "\n", "é"]), max_size=25).map("".join))
def test_separators_inside_values_survive(text: str) -> None:
    rendered = Template("t", "t", "<{{ text }}> ||| {{ text }}").apply({"text": text})
    assert rendered.num_parts == 2
    assert rendered.input == f"<{text}>"
    assert rendered.target == text.strip()


def test_separators_of_answer_choices_and_lists_split_as_in_the_original() -> None:
    rendered = Template("t", "t", "q ||| {{ answer_choices[0] }}", "{{ a }} ||| no").apply({"a": "x|||y"})
    assert rendered.answer_choices == ["x|||y", "no"]
    assert rendered.num_parts == 3
    assert Template("t", "t", "{{ items[0] }} ||| b").apply({"items": ["x|||y"]}).num_parts == 3


def test_a_hidden_separator_counts_32_characters_where_text_is_truncated() -> None:
    text = "w" * 2030 + " ||| end"
    assert len(text) < MAX_VARIABLE_LENGTH
    assert render("{{ text }} ||| x", text=text)[0] == "w" * 2030 + "..."


def test_draws_repeat_with_their_seed() -> None:
    template = Template(
        "t", "t", "{{ items | choice }} {{ items | random }} ||| x", "{{ items | choice }} ||| z"
    )
    row = {"items": list("abcdefghijklmnopqrstuvwxyz")}
    assert template.apply(row, seed="1/t/5") == template.apply(row, seed="1/t/5")
    assert len({template.apply(row, seed=seed).input for seed in range(20)}) > 15
    assert template.apply(row) == template.apply(row, seed=0)


def test_restricted_column_is_refused() -> None:
    with pytest.raises(ValueError, match="a column 'answer_choices'"):
        Template("t", "t", "a ||| b").apply({"answer-choices": ["x"]})


def test_errors_while_rendering_name_the_template() -> None:
    template = Template("t", "mine", "{{ a[0].x.y }} ||| b", dataset="boats")
    with pytest.raises(
        ValueError, match=r"template 'mine' of boats cannot be rendered: .*'str object' has no"
    ):
        template.apply({"a": "q"})
    with pytest.raises(ValueError, match=r"cannot be rendered: .*division"):
        render("{{ (1 / a) }} ||| b", a=0)


def test_missing_columns_read_as_empty_unless_strict() -> None:
    template = Template("t", "t", "{{ text }} ||| {{ answer_choices[label] }}", "{{ a }} ||| b")
    assert template.columns == {"text", "label", "a"}
    assert Template("t", "t", "{{ text }} ||| b").apply({}).input == ""
    with pytest.raises(ValueError, match="uses 'label', which the row does not have; its columns: a, text"):
        template.apply({"text": "x", "a": "y"}, strict=True)
    branch = Template("t", "t", "{% if wide %}{{ depth }}{% else %}x{% endif %} ||| b")
    assert branch.apply({"wide": False}, strict=True).input == "x"
    with pytest.raises(ValueError, match="'depth'"):
        branch.apply({"wide": True}, strict=True)


def test_names_that_a_template_sets_or_asks_for_are_no_columns() -> None:
    jinja = (
        "{% set n = a %}{% for k in range(b) %}{{ k }}{{ n }}{{ loop.index }}{% endfor %}"
        "{% if c is defined %}{{ c }}{% endif %}{% for i, j in zip(d, d) %}{% endfor %} ||| x"
    )
    assert Template("t", "t", jinja).columns == {"a", "b", "d"}


def test_a_template_travels_to_another_process() -> None:
    template = Template("t", "t", "{{ a }} ||| b", "x ||| {{ a }}")
    before = template.apply({"a": "1"})
    assert pickle.loads(pickle.dumps(template)).apply({"a": "1"}) == before


@pytest.mark.parametrize("label", [2, -1, None, "yes", 0.0])
def test_a_label_without_an_answer_choice_is_an_error_where_it_is_looked_for(label: Any) -> None:
    template = Template("id", "t", "{{ text }} ||| {{ answer_choices[label] }}", "no ||| yes")
    row = {"text": "boat", "label": label}
    with pytest.raises(ValueError, match=r"template 't' cannot be rendered: it asks for answer choice"):
        template.apply(row, strict=True)
    # As promptsource does it: the last choice for -1, nothing for the others.
    assert template.apply(row).target == ("yes" if label == -1 else "")
