"""The model card of real runs: what it says, what it keeps to itself, and that huggingface_hub reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from small_sources import Story, save_source

from metro_t0.evaluation.supervision import trained_on
from metro_t0.sharing.export import export_model
from metro_t0.sharing.model_card import CardSettings, data_card_of, model_card, public_card
from metro_t0.sharing.source import read_source


def section(text: str, title: str) -> str:
    """What stands under a heading."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_a_finetuned_model_is_described_from_its_run(story: Story) -> None:
    settings = CardSettings(
        name="me/model",
        license="mit",
        base_model="me/base",
        languages=("en",),
        datasets=("me/words",),
        pretraining=story.pretraining,
    )
    text = model_card(read_source(story.finetuning), settings, [story.evaluation])
    card = ModelCard(text)
    assert (card.data.license, card.data.base_model, card.data.language) == ("mit", "me/base", ["en"])
    assert card.data.datasets == ["me/words"] and card.data.library_name == "transformers"
    assert {"metro-t0", "zero-shot"} <= set(card.data.tags or [])
    results = json.loads((story.evaluation / "results.json").read_text())
    (result,) = card.data.eval_results or []
    assert result.dataset_config == "words" and result.metric_type == "accuracy"
    assert result.metric_value == round(results["tasks"][0]["mean"], 4)

    low, high = (f"{100 * end:.1f}" for end in results["tasks"][0]["interval"])
    scores = section(text, "Scores")
    assert f"| {low} to {high} |" in scores and "supervised" in scores and "small suite" in scores
    assert "small mixture: 1 tasks, 1 prompt templates" in section(text, "Training data")
    assert "| likeness/words |" in section(text, "Training data")
    assert "| seen | 3 steps, " in section(text, "How it was trained")
    assert "topics.jsonl" in section(text, "Pretraining data")
    assert "| objective: rtd weight | 50 |" in section(text, "Pretraining")
    assert "lower case only" in section(text, "Limits") and "## Licence" not in text


def test_a_pretrained_model_says_what_it_is_not(story: Story) -> None:
    text = model_card(read_source(story.pretraining), CardSettings("model"))
    card = ModelCard(text)
    assert card.data.license is None and card.data.base_model is None and not card.data.eval_results
    assert "zero-shot" not in (card.data.tags or [])
    assert "20 documents" in section(text, "Training data")
    assert "to need finetuning" in section(text, "Limits")
    assert "None: no evaluation" in section(text, "Scores")
    assert "Not stated yet" in section(text, "Licence")
    assert 'subfolder="pretraining"' in section(text, "Use")


def test_a_checkpoint_has_the_figures_of_its_step(story: Story) -> None:
    source = read_source(story.pretraining / "checkpoints" / "step-2")
    assert (source.run, source.step) == (story.pretraining.resolve(), 2)
    text = section(model_card(source, CardSettings("model")), "How it was trained")
    assert "| seen | 2 steps, " in text and "after step 2:" in text


def test_what_nobody_knows_is_said_to_be_unknown(tmp_path: Path) -> None:
    save_source(tmp_path / "model")
    text = model_card(read_source(tmp_path / "model"), CardSettings("model"))
    assert section(text, "Training data").startswith("\nUnknown")
    assert section(text, "How it was trained").startswith("\nUnknown")
    ModelCard(text)


def test_nothing_says_where_it_was_made(story: Story, tmp_path: Path) -> None:
    source = read_source(story.finetuning)
    text = model_card(source, CardSettings("model", pretraining=story.pretraining), [story.evaluation])
    export_model(source, tmp_path / "out", text, public_card(data_card_of(source)))
    for path in (tmp_path / "out").iterdir():
        if path.suffix in (".md", ".json"):
            assert str(story.finetuning.parent) not in path.read_text(), path
    # What it was finetuned on is still known, so that its scores there are not taken for zero-shot ones.
    assert trained_on(tmp_path / "out") == trained_on(story.finetuning) == {("likeness", "words")}


def test_an_evaluation_of_another_model_is_refused(story: Story, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of other weights than this model's"):
        model_card(read_source(story.pretraining), CardSettings("model"), [story.evaluation])
    with pytest.raises(ValueError, match=r"holds no results\.json"):
        model_card(read_source(story.finetuning), CardSettings("model"), [tmp_path])


def test_an_evaluation_in_the_run_is_taken_where_it_is_of_this_model(story: Story, tmp_path: Path) -> None:
    run = Path(shutil.copytree(story.finetuning, tmp_path / "run"))
    shutil.copytree(story.evaluation, run / "evaluation")
    assert "small suite" in section(model_card(read_source(run), CardSettings("model")), "Scores")
    other = Path(shutil.copytree(story.pretraining, tmp_path / "other"))
    shutil.copytree(story.evaluation, other / "evaluation")
    assert "None" in section(model_card(read_source(other), CardSettings("model")), "Scores")


def test_sources_on_the_hub_become_datasets_and_files_lose_their_folders(tmp_path: Path) -> None:
    save_source(tmp_path / "model")
    card = {
        "documents": 3,
        "sources": [{"source": "hf:wiki/pages:en@train"}, {"source": "/home/me/secret/news-*.jsonl"}],
        "settings": {"weights": {"/home/me/secret/news-*.jsonl": 2.0}, "decontaminate": ["/home/me/tests"]},
    }
    (tmp_path / "model" / "data_card.json").write_text(json.dumps(card))
    text = model_card(read_source(tmp_path / "model"), CardSettings("model"))
    assert ModelCard(text).data.datasets == ["wiki/pages"]
    assert "hf:wiki/pages:en@train" in text and "news-\\*.jsonl" in text and "secret" not in text
    assert "/home/me" not in json.dumps(public_card(card))

    sources = {"train": {"source": "aps/super_glue/rte (train) and aps/super_glue/rte (validation)"}}
    tasks = [{"name": "super_glue/rte", "rows": {"train": 7}, "sources": sources}]
    (tmp_path / "model" / "data_card.json").write_text(json.dumps({"name": "one", "tasks": tasks}))
    text = model_card(read_source(tmp_path / "model"), CardSettings("model"))
    assert ModelCard(text).data.datasets == ["aps/super_glue"]
    assert "| super\\_glue/rte | 7 |" in text


@pytest.mark.parametrize("name", ["no name", "a/b/c", "../up"])
def test_a_name_that_the_hub_does_not_know_is_refused(tmp_path: Path, name: str) -> None:
    save_source(tmp_path / "model")
    source = read_source(tmp_path / "model")
    with pytest.raises(ValueError, match="is no name on the Hub"):
        model_card(source, CardSettings("model", base_model=name))


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    save_source(tmp_path / "model")
    hostile = "a | b <script>alert(1) [x](y)\n## Scores"
    card = {"documents": 1, "sources": [{"source": hostile}], "dropped": {}}
    (tmp_path / "model" / "data_card.json").write_text(json.dumps(card))
    text = model_card(read_source(tmp_path / "model"), CardSettings("model"))
    data = section(text, "Training data")
    assert "a \\| b &lt;script&gt;alert(1) \\[x\\](y) ## Scores" in data
    assert text.count("\n## Scores") == 1
