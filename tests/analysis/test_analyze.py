"""The whole analysis: its record against direct computations, its losses, its files, its page, its one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analysed_runs import make_run

from headless_chromium import CHROMIUM, Browser
from metro_t0.analysis.analyze import AnalysisSettings, analyze, analyze_all
from metro_t0.analysis.inputs import read_text
from metro_t0.analysis.page import write_analysis
from metro_t0.analysis.statistics import rank_correlation
from metro_t0.evaluation.loading import load_model
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from metro_t0.objectives.span_corruption import SpanCorruptionObjective
from parsed_pages import ParsedPage
from run_command import command

QUICK = AnalysisSettings(rows=6, batch_tokens=100, zeroed_layers=2, zeroed_rows=3)


def test_activation_is_that_of_the_row_read_and_written(analysed: Path) -> None:
    record = analyze(analysed / "t5", corpus=analysed / "prepared", settings=QUICK)
    model, tokenizer = load_model(analysed / "t5")
    rows = read_text(analysed / "prepared", tokenizer, rows=6, longest=32, seed=0).rows
    fired: dict[tuple[str, int], list[torch.Tensor]] = {}
    for row in rows:
        ids = torch.from_numpy(row["input_ids"])[None]
        written = torch.cat([torch.tensor([[model.config.mask_token_id]]), ids[:, :-1]], dim=1)
        seen: list[torch.Tensor] = []
        hooks = [
            module.register_forward_hook(lambda _m, _i, output, to=seen: to.append(output[0]))
            for name, module in model.named_modules()
            if name.endswith(".wi")
        ]
        with torch.no_grad():
            model(input_ids=ids, decoder_input_ids=written)
        for hook in hooks:
            hook.remove()
        for place, states in zip(
            [("encoder", 0), ("encoder", 1), *(("decoder", n) for n in range(3))], seen, strict=True
        ):
            fired.setdefault(place, []).append(states > 0)
    for layer in record["activation"]["text"]:
        of_tokens = torch.cat(fired[layer["stack"], layer["layer"]]).double()
        assert layer["tokens"] == len(of_tokens) == record["inputs"]["text"]["tokens"]
        assert layer["share"] == pytest.approx(float(of_tokens.mean()), rel=1e-5)
        assert layer["dead"] == int((of_tokens.mean(dim=0) == 0).sum())


def loss_by_hand(model: Any, objective: Any, rows: list[Any], places: list[list[int]]) -> list[torch.Tensor]:
    return [
        objective(model, objective.collate([rows[p] for p in batch], [(0, p) for p in batch])).loss
        for batch in places
    ]


@pytest.mark.parametrize("loss", ["span-corruption", "own"])
def test_sensitivity_and_zeroing_are_those_of_the_loss(analysed: Path, loss: Any) -> None:
    settings = AnalysisSettings(rows=4, batch_tokens=1, zeroed_layers=1, zeroed_rows=2, loss=loss)
    record = analyze(analysed / "metro", corpus=analysed / "prepared", settings=settings)["sensitivity"]
    _, tokenizer = load_model(analysed / "metro")
    model = MetroT0ForPreTraining.from_pretrained(str(analysed / "metro" / "model")).eval()
    vocabulary = {
        "vocab_size": len(tokenizer),
        "num_sentinel_tokens": tokenizer.num_sentinel_tokens,
        "seed": 0,
    }
    objective: Any = (
        SpanCorruptionObjective(**vocabulary, pad_token_id=1)
        if loss == "span-corruption"
        else MetroObjective(**vocabulary, lm_positions="masked", rtd_weight=50.0)
    )
    rows = read_text(analysed / "prepared", tokenizer, rows=4, longest=32, seed=0).rows
    losses = loss_by_hand(model, objective, rows, [[0], [1], [2], [3]])
    assert record["loss"] == ("metro" if loss == "own" else "span-corruption")
    assert record["mean_loss"] == pytest.approx(sum(float(one.detach()) for one in losses) / 4, rel=1e-4)
    mass, signed = np.zeros(4), np.zeros(4)
    wi = model.decoder.block[0].layer[2].DenseReluDense.wi
    for place, one in enumerate(losses):
        model.zero_grad()
        one.backward()
        products = torch.cat([(p.detach() * p.grad).flatten() for p in wi.parameters()])
        mass[place], signed[place] = products.abs().sum(), -products.sum()
    groups = {(g["stack"], g["layer"], g["kind"]): g for g in record["groups"]}
    assert groups["decoder", 0, "feed-forward wi"]["mass"] == pytest.approx(mass.mean(), rel=1e-3)
    assert (("auxiliary", 0, "feed-forward wi") in groups) == (loss == "own")
    zeroed = {(z["stack"], z["layer"], z["kind"]): z for z in record["zeroed"]}
    entry = zeroed["decoder", 0, "feed-forward wi"]
    assert entry["first_order"] == pytest.approx(signed[:2].mean(), rel=1e-3, abs=1e-6)
    with torch.no_grad():
        before = float(sum(loss_by_hand(model, objective, rows, [[0], [1]]))) / 2
        for parameter in wi.parameters():
            parameter.zero_()
        after = float(sum(loss_by_hand(model, objective, rows, [[0], [1]]))) / 2
    assert entry["lost"] == pytest.approx(after - before, rel=1e-3, abs=1e-5)
    assert record["rank_correlation"]["mass"] == pytest.approx(
        rank_correlation([z["mass"] for z in record["zeroed"]], [abs(z["lost"]) for z in record["zeroed"]]),
        abs=1e-2,
    )
    assert record["rank_correlation"]["parameters"] == pytest.approx(
        rank_correlation(
            [groups[z["stack"], z["layer"], z["kind"]]["parameters"] for z in record["zeroed"]],
            [abs(z["lost"]) for z in record["zeroed"]],
        ),
        abs=1e-2,
    )


def test_prompts_are_the_question_where_they_are_given(analysed: Path) -> None:
    record = analyze(
        analysed / "metro", corpus=analysed / "prepared", prompts=analysed / "suite.yaml", settings=QUICK
    )
    assert list(record["activation"]) == ["text", "prompts"]
    assert (record["sensitivity"]["loss"], record["sensitivity"]["input"]) == ("prompts", "prompts")
    assert record["sensitivity"]["overall"]["parameters"] == record["model"]["parameters"]
    assert record == json.loads(json.dumps(record))
    again = analyze(
        analysed / "metro", corpus=analysed / "prepared", prompts=analysed / "suite.yaml", settings=QUICK
    )
    assert {**again, "seconds": 0} == {**record, "seconds": 0}
    own = analyze(
        analysed / "tuned",
        prompts=analysed / "suite.yaml",
        settings=AnalysisSettings(rows=6, loss="own", zeroed_layers=0),
    )
    assert (own["sensitivity"]["loss"], own["sensitivity"]["zeroed"]) == ("prompts", [])


def test_records_of_real_depth_stay_small(analysed: Path) -> None:
    record = analyze(
        analysed / "metro", corpus=analysed / "prepared", prompts=analysed / "suite.yaml", settings=QUICK
    )
    a_layer = len(json.dumps(record)) / 5
    assert a_layer * 8 < 60_000


@pytest.fixture(scope="module")
def written(analysed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of two vocabularies side by side, one of a hostile name."""
    out = tmp_path_factory.mktemp("written") / "side"
    hostile = make_run(out.parent / "<img src=x onerror=alert(1)>", analysed / "prepared", "tiny-t5")
    models = [analysed / "metro", analysed / "stranger", hostile]
    records = analyze_all(
        models, corpus=analysed / "prepared", prompts=analysed / "suite.yaml", settings=QUICK
    )
    write_analysis(records, out)
    return out


def test_files_say_what_the_records_say(written: Path) -> None:
    content = json.loads((written / "analysis.json").read_text(encoding="utf-8"))
    assert content["format_version"] == 1
    metro, stranger, _ = content["models"]
    assert metro["inputs"]["text"]["note"] == "" and "tokenized anew" in stranger["inputs"]["text"]["note"]
    page = ParsedPage((written / "analysis.html").read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    for record in content["models"]:
        assert record["model"]["name"] in text
        assert f"Gini {record['sensitivity']['overall']['gini']:.3f}" in text
    assert "tokenized anew" in text and "decoder 3: cross-attention" in text
    assert not {"img", "script"} & {tag for tag, _ in page.tags}
    charts = sum(tag == "svg" and attributes.get("class") == "chart" for tag, attributes in page.tags)
    assert charts == len(list((written / "figures").glob("*.svg"))) == 2 * 4 + 3 + 3 * 2


def test_different_losses_are_said_to_differ(analysed: Path, tmp_path: Path) -> None:
    settings = AnalysisSettings(rows=2, loss="own", zeroed_layers=0)
    models = [analysed / "metro", analysed / "t5"]
    write_analysis(analyze_all(models, corpus=analysed / "prepared", settings=settings), tmp_path)
    text = " ".join(ParsedPage((tmp_path / "analysis.html").read_text(encoding="utf-8")).text.split())
    assert "these sensitivities do not compare: metro's is METRO's own pretraining loss" in text
    assert "t5's is span corruption" in text and "Left out." in text


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_page_and_figures_in_a_browser(written: Path) -> None:
    with Browser() as browser:
        for width in (390, 1280):
            for dark in (False, True):
                browser.prefer_dark(dark)
                browser.open(written / "analysis.html", width=width)
                assert browser.evaluate("document.documentElement.scrollWidth") <= width
        for figure in sorted((written / "figures").glob("*.svg")):
            browser.open(figure, width=800)
            assert browser.evaluate("document.documentElement.nodeName") == "svg"
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


def test_the_command_prints_a_line_a_model(
    analysed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["analyze", analysed / "metro", analysed / "t5", "--data", analysed / "own.txt", "--rows", "4"]
    assert command(*words, "--zeroed-layers", "0", "--out", tmp_path / "a") == 0
    printed = capsys.readouterr().out
    assert "metro" in printed and "t5" in printed and "span-corruption" in printed
    assert command(*words, "--zeroed-layers", "1", "--out", tmp_path / "b", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads((tmp_path / "b" / "analysis.json").read_text(encoding="utf-8"))
    assert [record["model"]["name"] for record in content["models"]] == ["metro", "t5"]


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "nothing to read": (["metro"], ["nothing to read", "--data", "--prompts"]),
    "no such model": (["metro", "gone", "--data", "prepared"], ["gone"]),
    "no such text": (["metro", "--data", "gone"], ["gone"]),
    "a file that is no text": (["metro", "--data", "latin.txt"], ["latin.txt", "UTF-8"]),
    "a file of another kind": (["metro", "--data", "suite.yaml"], ["suite.yaml"]),
    "a run is no corpus": (["metro", "--data", "t5"], ["t5", "card.json"]),
    "no such suite": (["metro", "--prompts", "gone.yaml"], ["gone.yaml"]),
    "no auxiliary model": (
        ["headless", "--data", "prepared", "--loss", "own"],
        ["auxiliary model", "headless", "--loss span-corruption"],
    ),
    "no run": (["metro/model", "--data", "prepared", "--loss", "own"], ["config.yaml", "run directory"]),
    "own loss without prompts": (["tuned", "--data", "prepared", "--loss", "own"], ["tuned", "--prompts"]),
    "own loss without text": (["metro", "--prompts", "suite.yaml", "--loss", "own"], ["metro", "--data"]),
    "prompts' loss without prompts": (["metro", "--data", "prepared", "--loss", "prompts"], ["--prompts"]),
    "text's loss without text": (
        ["metro", "--prompts", "suite.yaml", "--loss", "span-corruption"],
        ["--data"],
    ),
    "no rows": (["metro", "--data", "prepared", "--rows", "0"], ["rows", "at least 1"]),
    "too many models": (["metro"] * 9 + ["--data", "prepared"], ["9 models", "at most 8"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(
    analysed: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(analysed)
    words, named = MISTAKES[name]
    assert command("analyze", *words, "--out", "new") == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("metro-t0: ") and "\n" not in said
    for word in named:
        assert word in said
    assert not (analysed / "new").exists()


def test_a_folder_that_is_a_file(analysed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = analysed / "own.txt"
    assert command("analyze", analysed / "metro", "--data", analysed / "prepared", "--out", out) == 2
    assert "it is a file" in capsys.readouterr().err


def test_golden_network_is_analysed(golden: Path, analysed: Path) -> None:
    record = analyze(golden / "hf_tiny", corpus=analysed / "own.txt", settings=QUICK)
    assert record["model"]["objective"] is None
    assert {layer["stack"] for layer in record["activation"]["text"]} == {"encoder", "decoder"}
    assert 0 < record["sensitivity"]["overall"]["gini"] < 1
