"""Making a study's runs: killed, shared, diverged, changed; real runs and real processes throughout."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_studies import SMALL_FINETUNING, TOO_HIGH, ablate, without_clock, write_study

from metro_t0.data.prepare import PreparedCorpus, prepare
from metro_t0.study.preparation import StudySettings, preview_study
from metro_t0.study.record import read_record
from metro_t0.study.runner import StudyOutcome, run_study
from metro_t0.study.study_file import load_study, shipped_axes, with_overrides

BASE, GATE, RATE = "one-size/base/seed-1", "one-size/rtd-gate=on/seed-1", "one-size/rate=too-high/seed-1"


def records(out: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(file.read_text()) for file in sorted((out / "records").glob("*.json"))]
    return {record["name"]: without_clock(record) for record in found}


def wait_for(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_all_runs_leave_a_record_and_one_that_diverges_does_not_stop_the_others(
    made_study: Path, study_file: Path, study_corpus: Path
) -> None:
    found = records(made_study)
    assert set(found) == {BASE, GATE, RATE}
    assert {name: record["status"] for name, record in found.items()} == {
        BASE: "done",
        GATE: "done",
        RATE: "diverged",
    }
    assert "not finite" in found[RATE]["reason"]
    for name in (BASE, GATE):
        assert found[name]["pretraining"]["tokens"] == pytest.approx(1500, abs=512)
        [task] = found[name]["finetunings"]["weather"]["tasks"]
        assert task["rows"] == 16 and task["chance"] == 0.5 and len(task["templates"]) == 2
        size = (made_study / "records" / f"{name.replace('/', '__')}.json").stat().st_size
        assert size < 100_000
    # With everything done, the same call makes nothing and says the same.
    before = {file: file.stat().st_mtime_ns for file in (made_study / "records").iterdir()}
    outcome = run_study(load_study(study_file), study_corpus, made_study, StudySettings())
    assert outcome.done == [BASE, GATE] and [name for name, _ in outcome.failed] == [RATE]
    assert before == {file: file.stat().st_mtime_ns for file in (made_study / "records").iterdir()}


def test_what_remains_of_a_run_is_its_models(made_study: Path) -> None:
    place = made_study / "runs" / BASE
    assert (place / "pretrain" / "model" / "config.json").is_file()
    assert (place / "weather" / "model" / "model.safetensors").is_file()
    assert not list(place.rglob("checkpoints"))


def test_nothing_remains_where_that_is_asked(study_file: Path, study_corpus: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study", finetunings={})
    run_study(load_study(file), study_corpus, tmp_path / "out", StudySettings(keep="nothing"))
    assert len(records(tmp_path / "out")) == 2
    assert not list((tmp_path / "out").rglob("model.safetensors"))


IN_PRETRAINING = f"runs/{BASE}/pretrain/metrics.jsonl"
BEFORE_FINETUNING = f"runs/{BASE}/pretrain/model/config.json"
IN_FINETUNING = f"runs/{BASE}/weather/config.yaml"
AFTER_FINETUNING = f"runs/{BASE}/weather/model/config.json"
IN_THE_SECOND = f"runs/{GATE}/pretrain/config.yaml"


@pytest.mark.parametrize(
    "moments",
    [
        [IN_FINETUNING],
        pytest.param(
            [IN_PRETRAINING, BEFORE_FINETUNING, AFTER_FINETUNING, IN_THE_SECOND], marks=pytest.mark.slow
        ),
    ],
    ids=["once", "again and again"],
)
def test_a_study_that_is_killed_ends_with_the_same_records(
    moments: list[str], made_study: Path, study_file: Path, study_corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for path in moments:
        process = ablate(study_file, study_corpus, out)
        wait_for(process, (out / path).exists)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = ablate(study_file, study_corpus, out)
    _, said = last.communicate()
    assert last.returncode == 1, said  # one run diverges
    assert records(out) == records(made_study)


@pytest.mark.slow
def test_processes_share_the_runs(
    made_study: Path, study_file: Path, study_corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    processes = [ablate(study_file, study_corpus, out) for _ in range(2)]
    said = "".join(process.communicate()[1] for process in processes)
    assert {process.returncode for process in processes} <= {0, 1}, said
    assert records(out) == records(made_study)
    for name in (BASE, GATE, RATE):
        assert said.count(f"] {name}: ") == 1, said


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(IN_PRETRAINING, id="in training"),
        pytest.param(AFTER_FINETUNING, id="in ranking", marks=pytest.mark.slow),
    ],
)
def test_sigterm_saves_and_the_same_command_goes_on(moment: str, study_corpus: Path, tmp_path: Path) -> None:
    in_training = moment == IN_PRETRAINING
    file = write_study(
        tmp_path / "study",
        **{"tokens": 60_000, "finetunings": {}} if in_training else {"axes": {"rate": TOO_HIGH}},
    )
    out = tmp_path / "out"
    process = ablate(file, study_corpus, out)
    wait_for(process, lambda: (out / moment).exists() and (out / moment).read_text().count("\n") > 3)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 75, said
    assert said.count("metro-t0:") == 1 and said.rstrip().endswith("the same command goes on")
    if in_training:
        assert list((out / moment).parent.glob("checkpoints/step-*"))
    assert not (out / "records").exists()
    again = ablate(file, study_corpus, out)
    again.communicate()
    assert again.returncode == (0 if in_training else 1) and len(records(out)) == 2


def run(study: Path, corpus: Path, out: Path, **settings: Any) -> StudyOutcome:
    return run_study(load_study(study), corpus, out, StudySettings(**settings))


def test_another_study_corpus_or_budget_is_refused(
    made_study: Path, study_corpus: Path, study_file: Path, tmp_path: Path
) -> None:
    before = records(made_study)
    other = write_study(tmp_path / "other", axes={"rtd-gate": None, "rate": TOO_HIGH}, tokens=1600)
    with pytest.raises(ValueError, match="was begun with another study"):
        run(other, study_corpus, made_study)
    with pytest.raises(ValueError, match="was begun with another budget"):
        run(study_file, study_corpus, made_study, budget_seconds=900.0)
    # A mixture of the same name with other content is another study too.
    same = write_study(tmp_path / "same", axes={"rtd-gate": None, "rate": TOO_HIGH})
    mixture = same.parent / "mixture.yaml"
    mixture.write_text(mixture.read_text() + "cap: 5\n")
    with pytest.raises(ValueError, match="was begun with another study"):
        run(same, study_corpus, made_study)
    assert records(made_study) == before


def test_a_record_of_other_settings_is_refused(
    made_study: Path, study_corpus: Path, study_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made_study, out)
    file = out / "records" / f"{BASE.replace('/', '__')}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "fingerprint": "0" * 16}))
    with pytest.raises(ValueError, match=f"the record of {BASE} in .* is of other settings"):
        run(study_file, study_corpus, out)
    file.write_text("{")
    with pytest.raises(ValueError, match=file.name):
        run(study_file, study_corpus, out)
    file.unlink()
    assert run(study_file, study_corpus, out).done == [BASE, GATE]
    record = read_record(out, BASE)
    assert record is not None and without_clock(record.values) == records(made_study)[BASE]


def test_a_foreign_folder_is_left_alone(study_corpus: Path, study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ValueError, match="already holds something else than a study"):
        run(study_file, study_corpus, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_mistake_that_concerns_all_runs_is_told_before_the_first(
    study_corpus: Path, tmp_path: Path
) -> None:
    finetuning: dict[str, Any] = {
        "mixture": "mixture.yaml",
        "suite": "mixture.yaml",
        "settings": SMALL_FINETUNING,
    }
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"mixture": "nowhere.yaml"}, "nowhere.yaml"),
        ({"suite": "nowhere.yaml"}, "nowhere.yaml"),
        ({"preset": "tyny"}, "there is no preset 'tyny'"),
        ({"settings": {"training.stesp": 3}}, "the nearest is 'training.steps'"),
    ]
    for number, (changed, message) in enumerate(mistakes):
        file = write_study(tmp_path / f"study-{number}", finetunings={"weather": {**finetuning, **changed}})
        out = tmp_path / f"out-{number}"
        with pytest.raises(ValueError, match=message):
            run(file, study_corpus, out)
        # Nothing is begun: mended, the study is made in the same folder.
        assert not out.exists()


def test_the_corpus_is_read_and_not_written(study_corpus: Path, made_study: Path) -> None:
    assert PreparedCorpus.load(study_corpus).card["documents"]
    assert not list(study_corpus.rglob("*.lock"))


@pytest.mark.slow
def test_every_shipped_axis_runs_from_end_to_end(study_corpus: Path, tmp_path: Path) -> None:
    layers = {"model.num_layers": 4, "model.num_decoder_layers": 4}
    file = write_study(tmp_path / "study", axes=dict.fromkeys(shipped_axes()), settings=layers)
    outcome = run(file, study_corpus, tmp_path / "out")
    assert outcome.failed == [] and outcome.elsewhere == []
    made = records(tmp_path / "out")
    # Of an auxiliary model of one layer, a sixth and a third of four are what there is already.
    values = sum(len(value.equal) for axis in shipped_axes().values() for value in axis.values.values())
    assert len(made) == 1 + values - 2
    for record in made.values():
        assert record["analysis"]["pretrained"]["activation"] and record["analysis"]["weather"]["sensitivity"]


@pytest.mark.slow
def test_a_short_study_fits_its_budget_and_yields_its_table(study_corpus: Path, tmp_path: Path) -> None:
    """METRO, its gate, and span corruption at equal tokens, operations and time, in three minutes."""
    file = write_study(tmp_path / "study", axes={"rtd-gate": None, "objective": None}, tokens=3_000_000)
    out = tmp_path / "out"
    begun = time.monotonic()
    process = ablate(file, study_corpus, out, "--budget", "3m")
    table, said = process.communicate()
    took = time.monotonic() - begun
    assert process.returncode == 0, said
    assert took < 2 * 180, f"{took:.0f} s on a machine that may have other work to do"
    assert len(records(out)) == 5
    written = (out / "table.md").read_text()
    for label in (
        "rtd-gate: on",
        *(f"span corruption, equal {what}" for what in ("tokens", "FLOPs", "time")),
    ):
        assert label in table and label in written
    assert any(verdict in table for verdict in ("better", "worse", "within noise"))
    assert (out / "index.html").stat().st_size > 10_000
    again = subprocess.run(
        [sys.executable, "-m", "metro_t0.cli.main", "ablate", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0 and again.stdout == table
    assert (out / "table.md").read_text() == written


def test_a_run_goes_on_wherever_its_corpus_lies_and_however_it_is_computed(
    made_study: Path, study_file: Path, study_corpus: Path, tmp_path: Path
) -> None:
    """Threads, log lines and the corpus's place are no settings of a study: in the middle of a run they may change."""
    out, moved = tmp_path / "out", tmp_path / "moved"
    process = ablate(study_file, study_corpus, out)
    wait_for(process, (out / IN_PRETRAINING).exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shutil.copytree(study_corpus, moved)
    study = with_overrides(load_study(study_file), ["training.threads=2", "training.keep_last=1"])
    outcome = run_study(study, moved, out, StudySettings())
    assert outcome.done == [BASE, GATE]
    # The pretraining that was begun kept its threads, and so its results to the last bit.
    for part in ("config", "pretraining"):
        assert records(out)[BASE][part] == records(made_study)[BASE][part]


def test_another_corpus_or_other_rows_are_refused(
    made_study: Path, study_file: Path, study_corpus: Path, tmp_path: Path
) -> None:
    before = records(made_study)
    source = tmp_path / "other.jsonl"
    texts = [f"Nothing that the other corpus has, {number}. " * 40 for number in range(8)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare([source], tmp_path / "other", tokenizer=study_corpus / "tokenizer", max_length=48)
    with pytest.raises(ValueError, match="was begun with another corpus"):
        run(study_file, tmp_path / "other", made_study)
    # The same study beside other rows, and beside other templates.
    for number, (name, changed) in enumerate(
        [
            ("weather-test.jsonl", ("24 degrees", "25 degrees")),
            ("weather.yaml", ("Which season", "What season")),
        ]
    ):
        same = write_study(tmp_path / f"same-{number}", axes={"rtd-gate": None, "rate": TOO_HIGH})
        file = same.parent / name
        file.write_text(file.read_text().replace(*changed))
        with pytest.raises(ValueError, match="was begun with other rows or templates"):
            run(same, study_corpus, made_study)
    assert records(made_study) == before


def test_a_run_that_failed_is_made_again_when_its_record_is_removed(
    made_study: Path, study_file: Path, study_corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made_study, out)
    (out / "records" / f"{RATE.replace('/', '__')}.json").unlink()
    outcome = run(study_file, study_corpus, out)
    assert [name for name, _ in outcome.failed] == [RATE]
    assert records(out) == records(made_study)


def test_a_run_that_does_not_fit_its_data_is_recorded_and_the_others_go_on(
    study_corpus: Path, tmp_path: Path
) -> None:
    short = {"base": "64", "values": {"32": {"settings": {"model.num_positions": 32}}}}
    file = write_study(tmp_path / "study", axes={"positions": short, "rtd-gate": None}, finetunings={})
    outcome = run(file, study_corpus, tmp_path / "out")
    assert outcome.done == [BASE, GATE]
    [(name, reason)] = outcome.failed
    assert name == "one-size/positions=32/seed-1"
    assert reason.startswith("failed: the data has rows of 4") and "the model takes 32" in reason


def test_examples_may_begin_below_the_rows_that_are_tried(study_corpus: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study")
    templates = file.parent / "weather.yaml"
    late = "{% if report.startswith('late') %}{{ report }} ||| {{ answer_choices[label] }}{% endif %}"
    written = templates.read_text().replace(
        "{{ report }} Which season is it? ||| {{ answer_choices[label] }}", late
    )
    templates.write_text(written)
    for part in ("train", "test"):
        rows = [{"report": f"{'late' if n > 40 else 'soon'} {n}", "label": n % 2} for n in range(50)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (file.parent / f"weather-{part}.jsonl").write_text(lines)
    prepared = preview_study(load_study(file), study_corpus, tmp_path / "out", StudySettings())
    assert [one.name for one in prepared.plan.runs] == [BASE, GATE]


def test_a_preview_is_the_plan_and_leaves_nothing(
    made_study: Path, study_file: Path, study_corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    timed = write_study(tmp_path / "timed", axes={"objective": None}, finetunings={})
    shown = preview_study(load_study(timed), study_corpus, out, StudySettings())
    assert [one.equality for one in shown.plan.runs] == [None, "tokens", "flops", "time"]
    assert not out.exists()
    before = {file: file.stat().st_mtime_ns for file in made_study.rglob("*")}
    stored = json.loads((made_study / "study.json").read_text())["runs"]
    shown = preview_study(load_study(study_file), study_corpus, made_study, StudySettings())
    assert [(one.name, one.tokens) for one in shown.plan.runs] == [(r["name"], r["tokens"]) for r in stored]
    assert dict(shown.fingerprints) == {r["name"]: r["fingerprint"] for r in stored}
    with pytest.raises(ValueError, match="was begun with another study"):
        preview_study(load_study(timed), study_corpus, made_study, StudySettings())
    assert before == {file: file.stat().st_mtime_ns for file in made_study.rglob("*")}


def test_a_sigterm_while_speeds_are_measured_begins_nothing(study_corpus: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study", axes={"objective": None}, finetunings={})
    process = ablate(file, study_corpus, tmp_path / "out", "--dry-run")
    assert process.stderr is not None and "Measuring" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 75 and "the same command goes on" in said, said
    assert not (tmp_path / "out").exists()
