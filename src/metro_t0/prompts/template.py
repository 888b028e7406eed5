"""Reads promptsource's templates and renders rows with them, bug for bug as promptsource v0.1.0 does.

    templates = load_templates("promptsource/templates")          # folders dataset[/subset]/templates.yaml
    template = templates["super_glue/rte"]["can we infer"]
    rendered = template.apply({"premise": "It rains.", "hypothesis": "It is wet.", "label": 0})
    rendered.input, rendered.target, rendered.answer_choices      # answer_choices is None when open-ended

    templates = load_template_file("my_templates.yaml")           # one file of the same format

The file's format (the tags ``!Template`` and ``!TemplateMetadata`` may be left out; a template without a name
is called by its key)::

    dataset: my_task
    templates:
      some-unique-id: !Template
        name: plain question
        answer_choices: "yes ||| no"           # a Jinja template too; left out for open-ended answers
        jinja: "{{ text }} Is that good? ||| {{ answer_choices[label] }}"
        metadata: !TemplateMetadata {original_task: true, choices_in_prompt: false, metrics: [Accuracy]}
        reference: ""

What the original does that one would not guess (``promptsource/templates.py``):

- Every ``}}`` of a template, wherever it stands, gets a filter that makes a string and truncates it to 2048
  characters (at a space, plus ``...``). In ``{{ a if b else c }}`` the filter binds to ``c`` alone.
- ``|||`` inside the strings of a row is hidden while rendering and put back afterwards. Answer choices come
  back *before* the template prints them, and strings inside a row's lists are not hidden: those still split.
- All parts and answer choices are stripped.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import TemplateSyntaxError, UndefinedError

from metro_t0.prompts.sandbox import DRAWS, MAX_OUTPUT, Choices, Draws, MissingColumn, environment
from metro_t0.prompts.template_file import read_template_file

MAX_VARIABLE_LENGTH = 2048
"""Characters of a printed variable that are kept (promptsource's TEXT_VAR_LENGTH)."""

SEPARATOR = "|||"

# The very string of promptsource, since it shows: its length counts where a text is truncated, and the
# templates of multi_news split their document at it.
_HIDDEN_SEPARATOR = "3ed2dface8203c4c9dfb1a5dc58e41e0"
_TRUNCATED_END = f" | string | truncate({MAX_VARIABLE_LENGTH}) }}}}"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row through one template.

    Attributes:
        input: the prompt, stripped; empty when the template skips this row.
        target: the answer, stripped; empty when the template gives none.
        answer_choices: what the answer is chosen from; None when it is open-ended.
        num_parts: parts of the rendering; T0 and METRO-T0 drop a rendering that has not exactly 2.
    """

    input: str
    target: str
    answer_choices: list[str] | None
    num_parts: int = 2


@dataclass(frozen=True, slots=True)
class TemplateMetadata:
    """What the author of a template says about it (None or empty: not said)."""

    original_task: bool | None = None
    choices_in_prompt: bool | None = None
    metrics: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """One prompt for the rows of one dataset; compiled on first use and then kept.

    Attributes:
        id: unique key in its file.
        name: name within its dataset.
        jinja: Jinja source of ``input ||| target``.
        answer_choices: Jinja source of ``choice ||| choice ...``, or None when answers are open-ended.
        reference: where the wording comes from.
        metadata: see :class:`TemplateMetadata`.
        dataset: key of its dataset, e.g. ``super_glue/rte``.
        origin: file and line, for messages.
    """

    id: str
    name: str
    jinja: str
    answer_choices: str | None = None
    reference: str = ""
    metadata: TemplateMetadata = field(default_factory=TemplateMetadata)
    dataset: str = ""
    origin: str = ""

    def __str__(self) -> str:
        return f"template {self.name!r}" + (f" of {self.dataset}" if self.dataset else "")

    @property
    def place(self) -> str:
        """File and line as messages begin with it; empty when unknown."""
        return f"{self.origin}: " if self.origin else ""

    def __getstate__(self) -> dict[str, Any]:
        # Compiled templates hold code objects, which do not travel to another process.
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def apply(self, row: Mapping[str, Any], *, seed: int | str = 0, strict: bool = False) -> Rendered:
        """Renders a row.

        Args:
            row: column -> value; hyphens in the names become underscores.
            seed: of the random draws that some templates make (``choice`` filter); equal seeds draw alike.
            strict: whether to use a column that the row does not have is an error, or to ask for an answer choice
                that there is not; as in promptsource, they otherwise read as empty, and a label of -1 as the last.

        Raises:
            ValueError: the row has a column ``answer_choices``, or the template is broken or fails on it.
        """
        variables: dict[str, Any] = {
            name.replace("-", "_"): value.replace(SEPARATOR, _HIDDEN_SEPARATOR)
            if isinstance(value, str)
            else value
            for name, value in row.items()
        }
        if "answer_choices" in variables:
            raise ValueError(
                f"{self}: the row has a column 'answer_choices', a name that templates keep: rename it"
            )
        if strict and (missing := self.columns - variables.keys()):
            return self._apply_without(missing, variables, seed)
        return self._apply(variables, seed, strict)

    def _apply_without(self, missing: frozenset[str], variables: dict[str, Any], seed: int | str) -> Rendered:
        """Renders although columns are missing: they may stand in a branch that is not taken."""
        columns = ", ".join(sorted(variables))
        try:
            return self._apply(variables | {name: MissingColumn(name=name) for name in missing}, seed, True)
        except ValueError as error:
            if not isinstance(error.__cause__, UndefinedError):
                raise
            names = " and ".join(repr(name) for name in sorted(missing))
            raise ValueError(
                f"{self} uses {names}, which the row does not have; its columns: {columns}"
            ) from error.__cause__

    def _apply(self, variables: dict[str, Any], seed: int | str, strict: bool) -> Rendered:
        variables[DRAWS] = Draws(seed)
        choices = self._choices(variables)
        variables["answer_choices"] = Choices(choices) if strict and choices is not None else choices
        parts = [_clean(part) for part in self._render(self._compiled, variables).split(SEPARATOR)]
        target = parts[1] if len(parts) > 1 else ""
        return Rendered(parts[0], target, None if choices is None else list(choices), len(parts))

    @functools.cached_property
    def fixed_answer_choices(self) -> tuple[str, ...] | None:
        """The answer choices when they are the same for every row, else None."""
        if self.answer_choices is None or self._choice_columns or "choice" in self.answer_choices:
            return None
        variables = {DRAWS: Draws(0)}
        return tuple(
            part.strip() for part in self._render(self._compiled_choices, variables).split(SEPARATOR)
        )

    @functools.cached_property
    def columns(self) -> frozenset[str]:
        """Columns that a row must have, as the template spells them (with underscores for hyphens).

        Names that the template sets itself, or asks for with ``is defined``, are not among them.
        """
        names = self._names(_truncating(self.jinja), "jinja") | self._choice_columns
        return frozenset(names - {"answer_choices"})

    def check(self) -> None:
        """Compiles the template; raises ValueError naming file, line and fault when it is not valid Jinja."""
        _ = self._compiled, self.columns
        if self.answer_choices is not None:
            _ = self._compiled_choices

    def _choices(self, variables: dict[str, Any]) -> list[str] | None:
        if self.answer_choices is None:
            return None
        fixed = self.fixed_answer_choices
        if fixed is not None:
            return list(fixed)
        return [_clean(part) for part in self._render(self._compiled_choices, variables).split(SEPARATOR)]

    @functools.cached_property
    def _compiled(self) -> jinja2.Template:
        return self._compile(_truncating(self.jinja), "jinja")

    @functools.cached_property
    def _compiled_choices(self) -> jinja2.Template:
        return self._compile(self.answer_choices or "", "answer_choices")

    @functools.cached_property
    def _choice_columns(self) -> frozenset[str]:
        return (
            frozenset() if self.answer_choices is None else self._names(self.answer_choices, "answer_choices")
        )

    def _names(self, source: str, part: str) -> frozenset[str]:
        try:
            tree = environment().parse(source)
            names = meta.find_undeclared_variables(tree)
        except TemplateSyntaxError as error:
            raise self._broken(part, error) from None
        names -= {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
        for test in tree.find_all(nodes.Test):
            if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name):
                names.discard(test.node.name)
        return frozenset(names)

    def _compile(self, source: str, part: str) -> jinja2.Template:
        try:
            return environment().from_string(source)
        except TemplateSyntaxError as error:
            raise self._broken(part, error) from None

    def _broken(self, part: str, error: TemplateSyntaxError) -> ValueError:
        return ValueError(
            f"{self.place}{self}: line {error.lineno} of its {part} is not valid Jinja: {error.message}"
        )

    def _render(self, compiled: jinja2.Template, variables: dict[str, Any]) -> str:
        # Template.render would do, but for the bound on what a hostile loop may print. The context is made
        # here since Template.new_context copies a chain of globals for every row, which takes as long as a
        # short rendering.
        env = environment()
        context = env.context_class(env, {**env.globals, **variables}, compiled.name, compiled.blocks)
        pieces: list[str] = []
        size = 0
        try:
            for piece in compiled.root_render_func(context):
                size += len(piece)
                if size > MAX_OUTPUT:
                    raise ValueError(f"it prints more than {MAX_OUTPUT} characters")
                pieces.append(piece)
        except Exception as error:  # a template can raise whatever an expression can
            message = str(error) or type(error).__name__
            raise ValueError(f"{self} cannot be rendered: {message}") from error
        return "".join(pieces)


class DatasetTemplates(Mapping[str, Template]):
    """The templates of one dataset, name -> :class:`Template`, in the order of their names.

    Of several templates with one name the last in the file counts, as in promptsource.

    Attributes:
        dataset: name of the dataset, e.g. ``super_glue``.
        subset: e.g. ``rte``, or None.
        path: the file.
    """

    def __init__(
        self, dataset: str, subset: str | None, templates: Mapping[str, Template], path: Path
    ) -> None:
        self.dataset = dataset
        self.subset = subset
        self.path = path
        self._templates = dict(sorted(templates.items()))

    @property
    def original_task(self) -> list[Template]:
        """Templates that ask for what the dataset was made for (the ones that T0 is evaluated on)."""
        return [template for template in self.values() if template.metadata.original_task]

    def __getitem__(self, name: str) -> Template:
        try:
            return self._templates[name]
        except KeyError:
            raise KeyError(_unknown(f"template {name!r} in {self.path}", name, self._templates)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._templates)

    def __len__(self) -> int:
        return len(self._templates)


class TemplateFolder(Mapping[str, DatasetTemplates]):
    """A promptsource templates folder, ``dataset[/subset]`` -> its templates; each is read when asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._paths = {
            path.parent.relative_to(directory).as_posix(): path
            for path in sorted(directory.rglob("templates.yaml"))
            if path.parent != directory
        }
        self._read: dict[str, DatasetTemplates] = {}

    def __getitem__(self, key: str) -> DatasetTemplates:
        if key not in self._paths:
            raise KeyError(_unknown(f"templates for {key!r} in {self.directory}", key, self._paths))
        if key not in self._read:
            self._read[key] = load_template_file(self._paths[key], key=key)
        return self._read[key]

    def __contains__(self, key: object) -> bool:
        return key in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def load_templates(directory: str | Path) -> TemplateFolder:
    """Opens a folder of ``dataset[/subset]/templates.yaml``; each file is read when asked for.

    Raises:
        ValueError: the folder does not exist or holds no such file.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"the templates folder {directory} does not exist")
    folder = TemplateFolder(directory)
    if not folder:
        raise ValueError(
            f"{directory} holds no <dataset>/templates.yaml: it is not a promptsource templates folder"
        )
    return folder


def load_template_file(path: str | Path, *, key: str | None = None) -> DatasetTemplates:
    """Reads one file of templates.

    Args:
        path: YAML in promptsource's format (see this module's first lines).
        key: dataset key for messages; by default what the file says.

    Raises:
        ValueError: names file and line of what is wrong.
    """
    path = Path(path)
    content = read_template_file(path)
    key = key or content.dataset + (f"/{content.subset}" if content.subset else "")
    templates = {
        entry["name"]: Template(
            **{**entry, "metadata": TemplateMetadata(**entry["metadata"])},
            dataset=key,
            origin=f"{path}:{line}",
        )
        for line, entry in content.templates
    }
    return DatasetTemplates(content.dataset or key, content.subset, templates, path)


def _truncating(jinja: str) -> str:
    return jinja.replace("}}", _TRUNCATED_END)


def _clean(part: str) -> str:
    return part.replace(_HIDDEN_SEPARATOR, SEPARATOR).strip()


def _unknown(what: str, name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"no {what}" + (f" (did you mean {near[0]!r}?)" if near else "")
