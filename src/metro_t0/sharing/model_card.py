"""The model card of a folder for the Hub: what the model is, what it read, how it was trained, how far to trust it.

    text = model_card(source, CardSettings(name="my-model", license="mit"), evaluations=[Path("results")])

Everything is taken from the source's run, data card and evaluations; what they do not say, the card says is unknown.
The first lines are YAML that huggingface_hub reads. Licence, language and base model are for the user to state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metro_t0.evaluation.records import (
    EvaluationRecord,
    RunRecord,
    is_evaluation,
    read_evaluation,
    read_json,
    read_run,
)

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

    from metro_t0.sharing.source import Source

Record = Mapping[str, Any]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# How cards write a dataset of the Hub: of a mixture's task, and of a corpus.
_HUB_TASK = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+?)(?:/[\w.-]+)? \([\w.+-]+\)")
_HUB_CORPUS = re.compile(r"hf:([^:@]+)(?:[:@].*)?")
_OBJECTIVES = {
    "metro": "pretrained by METRO: an auxiliary model replaces masked tokens, and the model learns from its signals",
    "span_corruption": "pretrained by span corruption, as T5",
    "prompted": "finetuned on prompted tasks",
}


@dataclass(frozen=True)
class CardSettings:
    """What only the person who shares the model can say.

    Attributes:
        name: title of the card, and the folder's or repository's name.
        license: an identifier of the Hub's list, such as ``mit``; None leaves the field out.
        base_model: Hub name of the model that training started from.
        languages: codes such as ``en``.
        datasets: names on the Hub, besides those that the data card names.
        pretraining: run directory of the pretraining that a finetuned model started from.
    """

    name: str
    license: str | None = None
    base_model: str | None = None
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    pretraining: Path | None = None


def model_card(source: Source, settings: CardSettings, evaluations: Sequence[Path] = ()) -> str:
    """The text of ``README.md``.

    Args:
        source: the model.
        settings: see there.
        evaluations: folders of ``metro-t0 evaluate``; where none is given, ``evaluation/`` of the run, if it is of this
            very model.

    Raises:
        ValueError: an evaluation is of another model or cannot be read, or a name of the Hub is none.
    """
    run = read_run(source.run) if source.run is not None else None
    before = read_run(settings.pretraining) if settings.pretraining is not None else None
    card = data_card_of(source)
    found = _evaluations(source, evaluations)
    data = _front_matter(settings, [card, before.data_card if before else {}], found)
    sections = [
        f"# {settings.name}",
        _what_it_is(source, run),
        _use(settings, source),
        _shape(source),
        *(
            [_training_data(before.data_card, "Pretraining data"), _recipe(before, None, "Pretraining")]
            if before
            else []
        ),
        _training_data(card, "Training data"),
        _recipe(run, source.step, "How it was trained"),
        _before(settings, card),
        _scores(settings, found),
        _limits(source, card, found),
        _licence(settings),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def _front_matter(
    settings: CardSettings, cards: Sequence[Record], evaluations: Sequence[EvaluationRecord]
) -> ModelCardData:
    from huggingface_hub import ModelCardData

    for name in filter(None, (settings.base_model, *settings.datasets)):
        if not _HUB_NAME.fullmatch(name) and not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{name!r} is no name on the Hub: write owner/name")
    tags = ["metro-t0", "text2text-generation"]
    if "tasks" in cards[0]:
        tags.append("zero-shot")
    datasets = sorted({*settings.datasets, *(name for card in cards for name in _hub_datasets(card))})
    return ModelCardData(
        license=settings.license,
        language=list(settings.languages) or None,
        library_name="transformers",
        base_model=settings.base_model,
        datasets=datasets or None,
        metrics=["accuracy"] if evaluations else None,
        model_name=settings.name if evaluations else None,
        eval_results=list(_eval_results(evaluations)) or None,
        tags=tags,
    )


def _eval_results(evaluations: Sequence[EvaluationRecord]) -> Iterator[Any]:
    """One result a task, as the Hub lists them."""
    from huggingface_hub import EvalResult

    for evaluation in evaluations:
        for task in evaluation.results.get("tasks", []):
            yield EvalResult(
                task_type="text2text-generation",
                task_name="Rank classification",
                dataset_type=str(task["dataset"]),
                dataset_name=str(task["task"]),
                dataset_config=task["subset"],
                dataset_split=task["split"],
                metric_type="accuracy",
                metric_name="mean accuracy over templates",
                metric_value=round(float(task["mean"]), 4),
            )


def _what_it_is(source: Source, run: RunRecord | None) -> str:
    number = sum(tensor.numel() for tensor in source.main_weights.values())
    made = "Nothing in the folder that it was made from says how it was trained."
    if run is not None:
        objective = str(run.config.get("objective", {}).get("kind", ""))
        made = f"It was {_OBJECTIVES.get(objective, 'trained')}."
    return (
        f"A text-to-text model of {number:,} parameters with the architecture of "
        "[METRO-T0](https://arxiv.org/abs/2305.12567): an encoder reads a prompt, a decoder writes or ranks answers. "
        f"{made}"
    )


def _use(settings: CardSettings, source: Source) -> str:
    text = f"""## Use

With transformers 5 or later, torch and sentencepiece; the code beside the weights is run:

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

name = "{settings.name}"  # the repository's name, or the folder
tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(name, trust_remote_code=True)
batch = tokenizer(["Is this review positive or negative? I liked it."], return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch, max_new_tokens=16), skip_special_tokens=True))
```

With `metro-t0` installed no code of this folder is run: `import metro_t0` before, and leave `trust_remote_code` out."""
    if source.has_pretraining_parts:
        text += (
            "\n\n`pretraining/` holds the same model with its auxiliary model and detection head, to go on with "
            'pretraining: `MetroT0ForPreTraining.from_pretrained(name, subfolder="pretraining")`.'
        )
    return text


def _shape(source: Source) -> str:
    config = source.config
    pieces = config.vocab_size - config.num_sentinel_tokens
    cased = "lower-cased" if source.tokenizer.lower else "cased"
    facts = [
        ("layers", f"{config.num_layers} encoder, {config.num_decoder_layers} decoder"),
        ("width, feed-forward width", f"{config.d_model}, {config.d_ff}"),
        ("attention heads", f"{config.num_heads} of {config.d_kv}"),
        (
            "relative positions",
            f"{config.relative_attention_num_buckets} buckets to distance {config.relative_attention_max_distance}, "
            "encoder only",
        ),
        ("longest sequence", f"{config.num_positions:,} tokens"),
        ("vocabulary", f"{pieces:,} pieces, {cased}, and {config.num_sentinel_tokens} sentinels"),
        ("number format", str(config.dtype).removeprefix("torch.")),
    ]
    return "## The network\n\n" + _table(("what", "value"), facts)


def _training_data(card: Record, title: str) -> str:
    if not card:
        return f"## {title}\n\nUnknown: no data card came with the model."
    if "tasks" in card:
        return f"## {title}\n\n" + "\n\n".join(_mixture(card))
    lines = [
        f"{card.get('documents', 0):,} documents, {card.get('characters', 0):,} characters, "
        f"{card.get('tokens', 0):,} tokens after cleaning."
    ]
    if sources := card.get("sources"):
        heads = ("source", "documents", "characters", "weight")
        rows = [
            (
                _text(_source_name(one["source"])),
                f"{one.get('documents', 0):,}",
                f"{one.get('characters', 0):,}",
                f"{one.get('weight', 1):g}",
            )
            for one in sources
        ]
        lines.append(_table(heads, rows))
    left_out = [
        f"{number:,} {name.replace('_', ' ')}" for name, number in card.get("dropped", {}).items() if number
    ]
    if left_out:
        lines.append(f"Left out: {', '.join(left_out)}.")
    return f"## {title}\n\n" + "\n\n".join(lines)


def _mixture(card: Record) -> Iterator[str]:
    totals = card.get("totals", {}).get("train", {})
    yield (
        f"The mixture {_text(str(card.get('name', '')))}: {len(card['tasks']):,} tasks, "
        f"{len(card.get('templates', [])):,} prompt templates, {totals.get('examples', 0):,} examples, "
        f"{totals.get('input_tokens', 0):,} input and {totals.get('target_tokens', 0):,} target tokens."
    )
    rows = []
    for task in card["tasks"]:
        places = [_source_name(facts["source"]) for facts in task.get("sources", {}).values()]
        number = task.get("rows", {}).get("train", 0)
        rows.append((_text(str(task["name"])), f"{number:,}", _text(", ".join(dict.fromkeys(places)))))
    yield _table(("task", "training rows", "source"), rows)


def _recipe(run: RunRecord | None, step: int | None, title: str) -> str:
    """Settings and figures of a run, up to a step or to its end."""
    if run is None:
        return f"## {title}\n\nUnknown: the model did not come with its run."
    config, last = run.config, _last(run, "train", step)
    training, optimizer = config.get("training", {}), config.get("optimizer", {})
    seen = [f"{last['step']:,} steps"] if "step" in last else []
    seen += [f"{last['tokens']:,} tokens"] if "tokens" in last else []
    facts: list[tuple[str, str]] = [("seen", ", ".join(seen))] if seen else []
    facts += [
        (name.replace("_", " "), _plain(training[name]))
        for name in ("batch_tokens", "precision", "seed")
        if name in training
    ]
    facts += [
        (name.replace("_", " "), _plain(value)) for name, value in optimizer.items() if value is not None
    ]
    facts += [(f"objective: {name}", value) for name, value in _flat(config.get("objective", {}))]
    facts += [
        (name.replace("_", " "), _plain(config[name]))
        for name in ("dropout_rate", "max_input_length", "max_target_length")
        if name in config
    ]
    parts = [f"## {title}", _table(("setting", "value"), facts)]
    validation = _last(run, "validation", step)
    losses = [
        f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in validation.items()
        if name.endswith("loss") and isinstance(value, float)
    ]
    if losses:
        parts.append(f"On validation rows, after step {validation['step']:,}: {', '.join(losses)}.")
    versions = run.environment.get("versions", {})
    made = [f"{name} {versions[name]}" for name in ("metro-t0", "torch", "transformers") if name in versions]
    if made:
        machine = ", ".join(run.environment.get("gpus", [])[:1]) or run.environment.get("processor", "")
        parts.append(f"Made with {', '.join(made)}" + (f", on {_text(machine)}." if machine else "."))
    return "\n\n".join(parts)


def _last(run: RunRecord, part: Literal["train", "validation"], step: int | None) -> Record:
    """The last line of a kind, up to a step; empty where there is none."""
    lines = [line for line in run.metrics[part] if step is None or line["step"] <= step]
    return lines[-1] if lines else {}


def _before(settings: CardSettings, card: Record) -> str:
    """What a finetuned model's card says of its beginning, where its pretraining is not described."""
    if "tasks" not in card or settings.pretraining is not None:
        return ""
    if settings.base_model is not None:
        return f"Finetuning started from `{settings.base_model}`, whose card says how that was pretrained."
    return "How the model was pretrained before is not said here."


def _scores(settings: CardSettings, evaluations: Sequence[EvaluationRecord]) -> str:
    if not evaluations:
        return "## Scores\n\nNone: no evaluation came with the model."
    from metro_t0.evaluation.report.markdown import results_markdown

    parts = ["## Scores", "By rank classification: the likeliest of the answer choices is the prediction."]
    for evaluation in evaluations:
        # The folder that was evaluated is named as this one; its path is nobody's business.
        text = results_markdown({**evaluation.results, "model": settings.name})
        parts.append(re.sub(r"^#", "###", text.strip(), flags=re.MULTILINE))
    return "\n\n".join(parts)


def _limits(source: Source, card: Record, evaluations: Sequence[EvaluationRecord]) -> str:
    lines = [
        f"It reads at most {source.config.num_positions:,} tokens of a prompt, and was not trained to refuse, to cite "
        "or to say that it does not know: what it writes can be wrong, and can repeat what its training data got wrong."
    ]
    if source.tokenizer.text_normalizer == "english":
        lines.append("Its tokenizer splits punctuation as English is written; other languages lose by it.")
    if source.tokenizer.lower:
        lines.append("It reads and writes lower case only.")
    if "tasks" not in card:
        lines.append(
            "Nothing says that it was finetuned on prompts: expect it to need finetuning before it answers."
        )
    for evaluation in evaluations:
        overall = evaluation.results.get("overall") or {}
        if overall.get("verdict") == "within noise":
            lines.append(
                f"On {_text(str(evaluation.results.get('suite', 'the suite')))} it is not told apart from guessing."
            )
    if not evaluations:
        lines.append("It was not evaluated here.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licence(settings: CardSettings) -> str:
    if settings.license is not None:
        return ""
    return (
        "## Licence\n\nNot stated yet. Who shares the weights states it (`license:` in this file's first lines), with "
        "an eye to the licences of the training data. The Python files are metro-t0's, under the MIT License."
    )


def _evaluations(source: Source, given: Sequence[Path]) -> list[EvaluationRecord]:
    """The given ones, which must be of this model; else the run's own, where it is."""
    for folder in given:
        record = read_evaluation(folder)
        if not _is_of(source, record):
            raise ValueError(
                f"the evaluation in {folder} is of other weights than this model's: evaluate this one, or leave it out"
            )
    if given:
        return [read_evaluation(folder) for folder in given]
    own = source.run / "evaluation" if source.run is not None else None
    if own is None or not is_evaluation(own):
        return []
    record = read_evaluation(own)
    return [record] if _is_of(source, record) else []


def _is_of(source: Source, evaluation: EvaluationRecord) -> bool:
    """Whether an evaluation was of these weights, by the checksum that it keeps; true where it keeps none."""
    import torch

    from metro_t0.evaluation.suites import tensors_checksum

    stored = evaluation.results.get("checksums", {}).get("model")
    held_in = getattr(torch, str(evaluation.results.get("precision", {}).get("dtype")), None)
    if stored is None or not isinstance(held_in, torch.dtype):
        return True
    tensors = {name: tensor.to(held_in) for name, tensor in source.main_weights.items()}
    tensors |= {name: tensors[first] for name, first in source.main_tied.items()}
    return tensors_checksum(tensors) == stored


def data_card_of(source: Source) -> Record:
    """The card of the data that a model was trained on, from its run or its folder; empty where there is none.

    Raises:
        ValueError: it cannot be read.
    """
    if source.run is not None and (card := read_run(source.run).data_card):
        return card
    return read_json(source.folder / "data_card.json") if source.folder is not None else {}


def _hub_datasets(card: Record) -> Iterator[str]:
    """Names on the Hub of what a corpus or a mixture was made from."""
    for source in card.get("sources", []):
        if match := _HUB_CORPUS.fullmatch(str(source["source"])):
            yield match[1]
    for task in card.get("tasks", []):
        for facts in task.get("sources", {}).values():
            for part in str(facts["source"]).split(" and "):
                if match := _HUB_TASK.fullmatch(part):
                    yield match[1]


def _source_name(name: str) -> str:
    """A source as readers elsewhere may know it: a Hub dataset by its name, a file without its folder."""
    parts = str(name).split(" and ")
    return " and ".join(
        part if _HUB_TASK.fullmatch(part) or _HUB_CORPUS.fullmatch(part) else Path(part).name or part
        for part in parts
    )


def public_card(card: Any, key: str = "") -> Any:
    """A data card without the folders of the machine that made it: files keep their names."""
    if isinstance(card, Mapping):
        return {public_card(name): public_card(value, name) for name, value in card.items()}
    if isinstance(card, list):
        return [public_card(value, key) for value in card]
    if isinstance(card, str) and (key == "source" or card.startswith(("/", "~"))):
        return _source_name(card)
    return card


def _flat(settings: Record, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        elif value is not None:
            yield f"{prefix}{name}".replace("_", " "), _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else _text(str(value))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (heads, ["---"] * len(heads), *rows)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _text(text: str) -> str:
    """Text from outside on one line, without a meaning in Markdown."""
    line = " ".join(text.split())
    line = re.sub(r"([\\`*_\[\]|])", r"\\\1", line)
    return line.replace("<", "&lt;").replace(">", "&gt;")
