"""Our models under lm-eval (the extra ``lm-eval``): its tasks, scored with each prompt encoded once.

    results = evaluate_lm_eval("runs/finetune", "my_task", Path("results"), include_path=Path("tasks"), limit=100)

From Python, once this module is imported, lm-eval knows the model as ``metro-t0``::

    lm_eval.simple_evaluate(model="metro-t0", model_args="pretrained=runs/finetune", tasks=["my_task"])

Its command ``lm_eval --model`` knows only the models inside lm-eval (0.4.13 looks for no entry points and imports
nothing of others), which is why there is ``metro-t0 evaluate --lm-eval``.

Likelihoods are those of lm-eval's own path (``HFLM(backend="seq2seq")``), token for token: the prompt with ``<s>`` and
``</s>``, cut at its *start* when too long; the answer without the end token. The published rule is another one, and
``official=True`` asks for it: the end token is scored too, and a long prompt is cut at its end.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from metro_t0.evaluation.loading import load_model
from metro_t0.evaluation.ranking.budget import TokenBudget, worked
from metro_t0.evaluation.ranking.folded import FoldedScorer
from metro_t0.evaluation.ranking.scorer import DistinctPrompt, Tokens, pad
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import handle_non_serializable
except ModuleNotFoundError as missing:
    raise ValueError("lm-eval's tasks need lm-eval: pip install 'metro-t0[lm-eval]'") from missing

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A context, an answer, and the tokens of both, as TemplateLM hands them on.
TokenRequest = tuple[tuple[str, str], list[int], list[int]]

_OFFICIAL_PROMPT_TOKENS = 512
_OFFICIAL_ANSWER_TOKENS = 256


@register_model("metro-t0")
class MetroT0LM(TemplateLM):
    """A model of ours as lm-eval asks it.

    Args:
        pretrained: a model folder, a run directory or a Hub name, or the model itself.
        tokenizer: of the model, where that is given itself.
        max_length: tokens of a prompt that are read; by default as many as the model has positions, officially 512.
        official: score by the published rule (see above), not as lm-eval's own path does.
        batch_size: prompts at once when answers are generated; ``auto`` is 16. Ranking goes by tokens.
        batch_tokens: padded tokens ranked at once; found by itself when None.
        max_batch_size: taken and not used, as lm-eval gives it to all models.
        device: e.g. ``cpu`` or ``cuda:1``; by default a GPU if there is one.

    Raises:
        ValueError: there is no such model, it is none of ours, or it was given without its tokenizer.
    """

    backend = "seq2seq"

    def __init__(
        self,
        pretrained: str | Path | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        max_length: int | None = None,
        official: bool = False,
        batch_size: int | str | None = None,
        batch_tokens: int | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        model: Any = pretrained
        if isinstance(pretrained, str | Path):
            model, tokenizer = load_model(pretrained, device=device)
        elif tokenizer is None:
            raise ValueError("a model that is given itself needs its tokenizer beside it: tokenizer=...")
        elif device is not None:
            model.to(device)
        if not isinstance(model, MetroT0ForConditionalGeneration) or not isinstance(
            tokenizer, MetroT0Tokenizer
        ):
            raise ValueError(
                f"{model.config.model_type} is no model of ours; lm-eval has its own way for others: "
                "lm_eval --model hf --model_args pretrained=...,backend=seq2seq"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.official = official
        positions = self.model.config.num_positions
        self.max_length = min(max_length or (_OFFICIAL_PROMPT_TOKENS if official else positions), positions)
        self.batch_size = 16 if batch_size in (None, "auto") else int(str(batch_size))
        self._budget = TokenBudget.of(self.model, batch_tokens, longest=self.max_length)
        self._device = self.model.device

    @property
    def eot_token_id(self) -> int:
        """``</s>``."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """``<s>``: the prompt where a task gives none."""
        return self.tokenizer.bos_token_id

    @property
    def tokenizer_name(self) -> str:
        """Where the tokenizer is from, for lm-eval's caches."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokens of a text, with ``<s>`` and ``</s>`` unless told otherwise or the text spells out its own ``<s>``."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.bos_token)
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of each request's answer, and whether greedy decoding would write it.

        Raises:
            ValueError: an answer that lm-eval's rule has no score for.
        """
        texts: list[tuple[str, str]] = [request.args for request in requests]
        if self.official:
            return self._ranked(texts, self._official(texts), disable_tqdm)
        if ("", "") in texts:
            self._check("", 0)
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[TokenRequest], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """What :meth:`loglikelihood` asks for, tokenized as lm-eval's own path does it."""
        pairs: list[tuple[Tokens, Tokens]] = []
        for (_, text), prompt, answer in requests:
            self._check(text, len(answer))
            pairs.append((tuple(prompt[-self.max_length :]), tuple(answer)))
        return self._ranked([texts for texts, _, _ in requests], pairs, disable_tqdm)

    def _check(self, answer: str, tokens: int) -> None:
        if not 0 < tokens <= self.max_length:
            raise ValueError(
                f"the answer {answer[:60]!r} has {tokens} tokens, and lm-eval's rule scores 1 to {self.max_length} "
                "(max_length); by the published rule (official=True, --published-rule) any answer has a score"
            )

    def _official(self, texts: Sequence[tuple[str, str]]) -> list[tuple[Tokens, Tokens]]:
        """Tokens by the published rule, without the space that lm-eval sets between a prompt and its answer."""
        scorer = FoldedScorer(self.model, self.tokenizer)
        texts = [(context, answer.removeprefix(" ")) for context, answer in texts]
        read = scorer.encode([context for context, _ in texts], max_length=self.max_length, keep_start=True)
        offered = scorer.encode(
            [answer for _, answer in texts], max_length=_OFFICIAL_ANSWER_TOKENS, keep_start=False
        )
        return [(read.tokens[context], offered.tokens[answer]) for context, answer in texts]

    def _ranked(
        self, texts: Sequence[tuple[str, str]], pairs: Sequence[tuple[Tokens, Tokens]], disable_tqdm: bool
    ) -> list[tuple[float, bool]]:
        """Scores pairs of a prompt and an answer, whose texts are for lm-eval's cache."""
        prompts: dict[Tokens, DistinctPrompt] = {}
        asked: dict[Tokens, list[tuple[int, Tokens]]] = {}
        for index, (tokens, answer) in enumerate(pairs):
            prompts.setdefault(tokens, DistinctPrompt(tokens)).scores[answer] = 0.0
            asked.setdefault(tokens, []).append((index, answer))
        results: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        scorer = FoldedScorer(self.model, self.tokenizer, watch_greedy=True)
        with (
            torch.inference_mode(),
            tqdm(total=len(pairs), desc="Ranking answers", disable=disable_tqdm) as bar,
        ):
            for batch in worked(list(prompts.values()), scorer, self._budget, _say):
                for prompt in batch:
                    for index, answer in asked[prompt.tokens]:
                        results[index] = (prompt.scores[answer], answer in prompt.greedy)
                        self.cache_hook.add_partial("loglikelihood", texts[index], results[index])
                    bar.update(len(asked[prompt.tokens]))
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Refuses: an encoder-decoder gives a text no likelihood without a prompt."""
        raise ValueError(
            "an encoder-decoder has no likelihood of a text by itself (loglikelihood_rolling): leave out the tasks "
            "that measure perplexity"
        )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, cut at the first stop sequence.

        Prompts are cut at their start. ``max_gen_toks`` (256 where a task names none) counts the answer's tokens alone;
        lm-eval's own path lets an encoder-decoder write as many more as its prompt is long.
        """
        written: list[str] = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        tokens = [self.tok_encode(request.args[0])[-self.max_length :] for request in requests]
        for index in sorted(range(len(requests)), key=lambda index: -len(tokens[index])):
            groups.setdefault(json.dumps(requests[index].args[1], sort_keys=True), []).append(index)
        with tqdm(total=len(requests), desc="Writing answers", disable=disable_tqdm) as bar:
            for setting, members in groups.items():
                for start in range(0, len(members), self.batch_size):
                    batch = members[start : start + self.batch_size]
                    texts = self._write([tokens[index] for index in batch], json.loads(setting))
                    for index, text in zip(batch, texts, strict=True):
                        written[index] = text
                        self.cache_hook.add_partial("generate_until", requests[index].args, text)
                    bar.update(len(batch))
        return written

    def _write(self, prompts: Sequence[Sequence[int]], setting: dict[str, Any]) -> list[str]:
        options: dict[str, Any] = dict(normalize_gen_kwargs(setting))
        until = handle_stop_sequences(options.pop("until", None), eos=self.tokenizer.eos_token)
        if not options["do_sample"]:
            options.pop("temperature", None)
        written = self.model.generate(
            input_ids=pad(prompts, self.tokenizer.pad_token_id).to(self.model.device),
            attention_mask=pad([[1] * len(prompt) for prompt in prompts], 0).to(self.model.device),
            max_new_tokens=options.pop("max_gen_toks"),
            **options,
        )
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [postprocess_generated_text(text, until, None) for text in texts]


def evaluate_lm_eval(
    model: str | Path,
    tasks: Sequence[str],
    out: Path,
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    official: bool = False,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Runs tasks of lm-eval on a model and writes their results as lm-eval gives them.

    Args:
        model: a model folder, a run directory or a Hub name.
        tasks: names of tasks or groups, patterns (``mmlu_*``) too.
        out: folder for ``lm-eval.json``; made if need be.
        include_path: folder of further tasks (YAML files).
        limit: only the first documents of each task.
        official: score by the published rule, not as lm-eval's own path does.
        max_length: tokens of a prompt that are read.

    Returns:
        What ``lm_eval.simple_evaluate`` returns: ``results`` by task, ``configs``, ``versions``, ``n-samples``...

    Raises:
        ValueError: no such task or model, the data of a task cannot be had, or there are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("tasks of lm-eval run in one process: start the command without torchrun")
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    names = _known_tasks(manager, tasks)
    network = MetroT0LM(model, official=official, max_length=max_length)
    try:
        results = simple_evaluate(
            network, tasks=names, limit=limit, task_manager=manager, log_samples=False, verbosity=None
        )
    except OSError as error:
        raise ValueError(f"lm-eval cannot get the data of {', '.join(names)}: {error}") from error
    assert results is not None, "one process, so this is the first"
    results["config"] |= {"model": "metro-t0", "model_args": {"pretrained": str(model), "official": official}}
    out.mkdir(parents=True, exist_ok=True)
    aside = out / ".lm-eval.json.writing"
    text = json.dumps(results, indent=2, ensure_ascii=False, default=handle_non_serializable)
    aside.write_text(text + "\n", encoding="utf-8")
    aside.replace(out / "lm-eval.json")
    return results


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _known_tasks(manager: TaskManager, tasks: Sequence[str]) -> list[str]:
    names: list[str] = []
    for task in tasks:
        found = manager.match_tasks([task])
        if not found:
            near = difflib.get_close_matches(task, manager.all_tasks, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"lm-eval knows no task {task!r}{hint}; tasks of your own: --include-path DIR")
        names += found
    return list(dict.fromkeys(names))
