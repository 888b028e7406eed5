"""Runs from end to end on real text: killed and resumed, started from another, refused with one line."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from small_runs import SMALL_RUN, fill, losses, small_config, started, wait_for_step, wait_until

from metro_t0.config import load_finetune_config, read_config
from metro_t0.data.prepare import prepare
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.training.checkpoint import newest_whole, steps_saved
from metro_t0.training.metrics import MetricsFile
from metro_t0.training.run import finetune, pretrain

TINY = ["--preset", "tiny", *SMALL_RUN]
SIXTY = [
    "training.steps=60",
    "training.save_every=10",
    "training.validate_every=20",
    "model.dropout_rate=0.1",
]
FINETUNE = [
    "training.steps=12",
    "training.precision=fp32",
    "training.threads=1",
    "training.batch_tokens=256",
    "training.log_every=1",
    "max_input_length=48",
    "max_target_length=16",
    "dropout_rate=0.1",
]
# Trains like any run, and kills itself with SIGKILL in the middle of what follows the log line of step 25.
KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from metro_t0.config import load_pretrain_config
from metro_t0.training.metrics import MetricsFile
from metro_t0.training.run import pretrain

append = MetricsFile.append

def append_and_die(file, values):
    append(file, values)
    if values["step"] == 25:
        os.kill(os.getpid(), signal.SIGKILL)

MetricsFile.append = append_and_die
pretrain(load_pretrain_config("tiny", overrides=sys.argv[3:]), Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A METRO run of 60 steps that nothing stopped."""
    return pretrain(small_config(*SIXTY), corpus, tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of forty rows under two templates."""
    folder = tmp_path_factory.mktemp("mixture")
    words = ["python", "module", "class", "string", "object", "value", "name", "list"]
    rows = [{"word": words[i % 8], "other": words[(i * 3 + 1) % 8], "same": int(i % 2)} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    entry = "    answer_choices: no ||| yes\n    jinja: {!r}\n    metadata: !TemplateMetadata {{original_task: true}}\n"
    template = "  {id}: !Template\n    id: {id}\n    name: {name}\n    reference: ''\n"
    lines = ["dataset: rows\ntemplates:\n"]
    for id_, name, jinja in (
        ("a1", "first", "the {{word}} and the {{other}} ||| {{answer_choices[same]}}"),
        ("b2", "second", "is {{word}} like {{other}}? ||| {{answer_choices[same]}}"),
    ):
        lines.append(template.format(id=id_, name=name) + entry.format(jinja))
    (folder / "templates.yaml").write_text("".join(lines), encoding="utf-8")
    text = "name: small\ntemplates: templates.yaml\ntasks:\n- {dataset: rows, train: rows.jsonl}\n"
    (folder / "mixture.yaml").write_text(text, encoding="utf-8")
    return folder / "mixture.yaml"


def test_a_run_leaves_what_its_contract_says(whole: Path, corpus: Path) -> None:
    config = yaml.safe_load((whole / "config.yaml").read_text(encoding="utf-8"))
    assert next(iter(config)) == "format_version" and config["format_version"] == 1
    environment = (whole / "environment.json").read_text(encoding="utf-8")
    assert (
        json.loads(environment)["versions"]["torch"] == torch.__version__.split("+")[0]
        or "torch" in environment
    )
    assert os.uname().nodename not in environment and str(whole.parent) not in environment
    assert json.loads((whole / "data_card.json").read_text(encoding="utf-8"))["tokens"] > 0
    train, validation = losses(whole), losses(whole, "validation")
    assert list(train) == list(range(1, 61)) and list(validation) == [20, 40, 60]
    assert {
        "auxiliary_loss",
        "rtd_loss",
        "lm_loss",
        "auxiliary_accuracy",
        "rtd_recall",
        "gradient_norm",
    } <= set(train[1])
    assert "lm_accuracy_all" in validation[20] and "lm_accuracy_all" not in train[20]
    assert {"rtd_precision", "lm_loss_replaced", "lm_loss_kept", "gradient_norm_encoder"} <= set(train[1])
    assert {"rtd_predicted_0", "activation_share_encoder_0"} <= set(validation[20]) - set(train[20])
    shown = samples_of(whole)
    assert [line["step"] for line in shown] == [0, 20, 40, 60] and shown[-1]["tokens"] == train[60]["tokens"]
    assert len({json.dumps([row["original"] for row in line["rows"]]) for line in shown}) == 1
    assert train[60]["loss"] < train[1]["loss"]
    assert steps_saved(whole / "checkpoints")[-1] == 60
    assert not list(whole.rglob(".*.partial"))
    model = MetroT0ForConditionalGeneration.from_pretrained(whole / "model")
    tokenizer = MetroT0Tokenizer.from_pretrained(str(whole / "model"))
    assert (
        model.config.vocab_size
        == len(tokenizer)
        == len(MetroT0Tokenizer.from_pretrained(str(corpus / "tokenizer")))
    )
    assert MetroT0ForPreTraining.from_pretrained(whole / "checkpoints" / "step-60").rtd_head is not None


def test_killed_at_25_and_resumed_it_writes_the_same_losses(
    whole: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(corpus), str(run), *SMALL_RUN, *SIXTY],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert max(losses(run)) == 25 and set(steps_saved(run / "checkpoints")) <= {10, 20}
    pretrain(small_config(*SIXTY), corpus, run, resume=True)
    assert_same_run(run, whole)


def test_killed_inside_a_save_it_goes_on_from_the_one_before(
    whole: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    kill_inside_a_save(started(corpus, run, *TINY, *SIXTY), run)
    assert list((run / "checkpoints").glob(".step-*.partial"))
    pretrain(small_config(*SIXTY), corpus, run, resume=True)
    assert_same_run(run, whole)


@pytest.mark.slow
def test_killed_at_twenty_moments_it_is_the_run_that_nothing_stopped(corpus: Path, tmp_path: Path) -> None:
    often = ["training.steps=140", "training.save_every=1", "training.validate_every=7"]
    whole = pretrain(small_config(*often), corpus, tmp_path / "whole")
    run = tmp_path / "killed"
    moments = random.Random(11)
    for kill in range(20):
        begun = max(losses(run), default=0) if run.exists() else 0
        process = started(corpus, run, *TINY, *often, *(["--resume"] if begun else []))
        wait_for_step(process, run, begun + moments.randint(1, 4))
        if kill % 2:
            kill_inside_a_save(process, run)
        else:
            time.sleep(moments.uniform(0.0, 0.1))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        # A save begins once the one before it is whole: no more than two steps are lost.
        newest = newest_whole(run / "checkpoints")
        assert int(newest.name.removeprefix("step-") if newest else 0) >= max(losses(run)) - 2
    pretrain(small_config(*often), corpus, run, resume=True)
    assert_same_run(run, whole)


def test_a_full_disk_ends_the_run_with_one_line_and_it_goes_on_later(
    whole: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = started(corpus, run, *TINY, *SIXTY)
    wait_until(process, lambda: bool(steps_saved(run / "checkpoints")))
    # Room for a line, not for a model.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (40_000, 40_000))
    said = process.communicate()[1]
    assert process.returncode == 2, said
    line = said.strip().splitlines()[-1]
    assert line.startswith("metro-t0: the checkpoint of step ") and "Traceback" not in said
    assert f"cannot be written to {run / 'checkpoints'}: File too large" in line
    assert steps_saved(run / "checkpoints") and not list(run.rglob(".*.partial"))
    pretrain(small_config(*SIXTY), corpus, run, resume=True)
    assert_same_run(run, whole)


def test_a_disk_too_full_for_the_final_model_is_one_line(
    corpus: Path, tmp_path: Path, small_disk: Path
) -> None:
    config = small_config("training.steps=1")
    elsewhere = pretrain(config, corpus, tmp_path / "elsewhere")
    files = [path for path in elsewhere.rglob("*") if path.is_file() and "model" not in path.parts[:-1]]
    # Room in pages for all but model/, and for some of that.
    fill(small_disk, sum(-(-path.stat().st_size // 4096) * 4096 for path in files) + 60_000)
    run = small_disk / "run"
    with pytest.raises(
        ValueError, match=r"run cannot be written to: No space left on device; make room and go"
    ):
        pretrain(config, corpus, run)
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["checkpoints"]
    (small_disk / "filler").unlink()
    pretrain(config, corpus, run, resume=True)
    assert_same_run(run, elsewhere)


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(
    whole: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "model")
    assert steps_saved(run / "checkpoints") == [50, 60]
    weights = run / "checkpoints" / "step-60" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    console = Console(record=True, width=500, quiet=False, file=(tmp_path / "shown").open("w"))
    pretrain(small_config(*SIXTY), corpus, run, resume=True, console=console)
    shown = [line for line in console.export_text().splitlines() if "damaged" in line]
    assert len(shown) == 1
    assert shown[0].startswith(f"{weights.parent} is damaged: model.safetensors has ")
    assert_same_run(run, whole)


def test_nothing_but_damaged_checkpoints_is_said_with_the_mend(
    whole: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for step in steps_saved(run / "checkpoints"):
        (run / "checkpoints" / f"step-{step}" / "optimizer" / ".metadata").unlink()
    with pytest.raises(
        ValueError, match=r"no checkpoint of .* is whole \(.*step-50 is damaged: optimizer/.metadata"
    ):
        pretrain(small_config(*SIXTY), corpus, run, resume=True)
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "model")
    pretrain(small_config(*SIXTY), corpus, run, resume=True)
    assert_same_run(run, whole)


def kill_inside_a_save(process: subprocess.Popen[str], run: Path) -> None:
    """Kill a run while a half-written checkpoint is there."""

    def saving() -> bool:
        return any((run / "checkpoints").glob(".step-*.partial"))

    while True:
        wait_until(process, saving)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        if saving():
            break
        process.send_signal(signal.SIGCONT)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def samples_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_same_run(run: Path, whole: Path) -> None:
    """Bit for bit: every number of every step, every sample, and the weights."""
    assert samples_of(run) == samples_of(whole)
    for kind in ("train", "validation"):
        assert losses(run, kind) == losses(whole, kind)
    one, other = (MetroT0ForPreTraining.from_pretrained(path / "model").state_dict() for path in (whole, run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list(run.rglob(".*.partial"))


def test_killed_before_the_first_checkpoint_it_starts_again(corpus: Path, tmp_path: Path) -> None:
    run = pretrain(small_config("training.steps=3"), corpus, tmp_path / "run")
    first = losses(run)
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "model")
    pretrain(read_config(run / "config.yaml"), corpus, run, resume=True)
    assert losses(run) == first and (run / "model").is_dir()


def test_what_was_measured_is_recorded_and_kept(corpus: Path, tmp_path: Path) -> None:
    config = small_config("training.precision=auto", "training.threads=auto", "training.budget_seconds=4")
    run = pretrain(config, corpus, tmp_path / "run")
    resolved = read_config(run / "config.yaml").training
    steps = max(losses(run))
    assert resolved.steps is not None
    assert resolved.precision in {"fp32", "bf16"} and isinstance(resolved.threads, int)
    measured = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["measured"]
    assert {"precision", "steps", "peak"} <= set(measured)
    last = run / "checkpoints" / f"step-{steps}"
    state = json.loads((last / "state.json").read_text(encoding="utf-8"))
    assert state["config"]["training"] == resolved.model_dump(mode="json")
    assert state["schedule"]["steps"] == steps
    before = (run / "config.yaml").read_bytes()
    shutil.rmtree(run / "model")
    pretrain(config, corpus, run, resume=True)
    assert (run / "config.yaml").read_bytes() == before and (run / "model").is_dir()


@pytest.mark.parametrize("preset", ["tiny", "tiny-t5"])
def test_init_from_takes_the_weights_and_begins_anew(
    whole: Path, corpus: Path, tmp_path: Path, preset: str
) -> None:
    config = small_config("training.steps=1", "optimizer.learning_rate=1e-12", preset=preset)
    run = pretrain(config, corpus, tmp_path / "run", init_from=whole)
    there = MetroT0ForConditionalGeneration.from_pretrained(whole / "model").state_dict()
    here = MetroT0ForConditionalGeneration.from_pretrained(run / "model").state_dict()
    for name, value in here.items():
        torch.testing.assert_close(value, there[name], atol=1e-9, rtol=1e-6)
    assert list(losses(run)) == [1]


def test_finetuning_starts_from_the_run_and_resumes(
    whole: Path, mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_finetune_config("finetune-tiny", overrides=[*FINETUNE, "training.save_every=5"])
    run = finetune(config, whole, mixture, tmp_path / "run")
    train = losses(run)
    assert list(train) == list(range(1, 13))
    assert train[12]["lm_loss"] < train[1]["lm_loss"] and "lm_accuracy" in train[12]
    assert json.loads((run / "data_card.json").read_text(encoding="utf-8"))["name"] == "small"
    model = MetroT0ForConditionalGeneration.from_pretrained(run / "model")
    assert model.config.dropout_rate == 0.1
    assert not any(name.startswith(("auxiliary", "rtd_head")) for name in model.state_dict())
    tokenizer = MetroT0Tokenizer.from_pretrained(str(run / "model"))
    assert (
        model.generate(**tokenizer(["is python like class?"], return_tensors="pt"), max_new_tokens=4).shape[0]
        == 1
    )
    append = MetricsFile.append

    def stop_after_11(file: MetricsFile, values: Mapping[str, Any]) -> None:
        append(file, values)
        if values["step"] == 11:
            raise RuntimeError

    monkeypatch.setattr(MetricsFile, "append", stop_after_11)
    stopped = tmp_path / "stopped"
    with pytest.raises(RuntimeError):
        finetune(config, whole, mixture, stopped)
    monkeypatch.undo()
    assert not (stopped / "model").exists()
    finetune(config, whole, mixture, stopped, resume=True)
    assert losses(stopped) == train
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "stopped"]


# ---------------------------------------------------------------- one clear line


def test_a_folder_that_holds_a_run_is_refused(whole: Path, corpus: Path) -> None:
    with pytest.raises(ValueError, match="already holds a run: continue it with --resume"):
        pretrain(small_config(), corpus, whole)


def test_one_call_starts_goes_on_and_finds_itself_done(whole: Path, corpus: Path, tmp_path: Path) -> None:
    console = Console(file=StringIO())
    config = small_config("training.steps=2")
    for _ in range(2):
        run = pretrain(config, corpus, tmp_path / "run", resume=True, init_from=whole, console=console)
        assert list(losses(run)) == [1, 2]
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("There is no run in") == 1
    assert losses(run)[1] == losses(pretrain(config, corpus, tmp_path / "other", init_from=whole))[1]


def test_a_changed_configuration_is_named(whole: Path, corpus: Path) -> None:
    with pytest.raises(ValueError, match=r"optimizer.learning_rate is 0.\d+ in .* and 0.5 now"):
        pretrain(small_config(*SIXTY, "optimizer.learning_rate=0.5"), corpus, whole, resume=True)


def test_a_run_of_the_other_kind_is_named(whole: Path, mixture: Path) -> None:
    with pytest.raises(ValueError, match="is a pretrain run"):
        finetune(load_finetune_config("finetune-tiny"), whole, mixture, whole, resume=True)


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    source = folder / "topics.jsonl"
    texts = [topics[name] for name in sorted(topics)[40:50]]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare([source], folder / "prepared", vocab_size=300, validation_fraction=0.3, max_length=64)
    return folder / "prepared"


def test_other_data_is_refused_on_resume(whole: Path, other_corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with pytest.raises(ValueError, match=r"was trained on other data \(rows: \d+, now \d+\)"):
        pretrain(small_config(*SIXTY), other_corpus, run, resume=True)


def test_another_vocabulary_is_refused_with_the_reason(
    whole: Path, other_corpus: Path, tmp_path: Path
) -> None:
    config = small_config("model.num_positions=512")
    with pytest.raises(
        ValueError, match=r"another vocabulary than the corpus: \d+ ids, not \d+; prepare the corpus"
    ):
        pretrain(config, other_corpus, tmp_path / "run", init_from=whole)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_shape_or_part_are_refused(
    whole: Path, corpus: Path, mixture: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"cannot be taken: its d_ff is 32, this configuration's is 48"):
        pretrain(small_config("model.d_ff=48"), corpus, tmp_path / "run", init_from=whole)
    prompted = finetune(
        load_finetune_config("finetune-tiny", overrides=[*FINETUNE, "training.steps=1"]),
        whole,
        mixture,
        tmp_path / "ft",
    )
    with pytest.raises(ValueError, match=r"it has no (auxiliary|rtd_head) part"):
        pretrain(small_config(), corpus, tmp_path / "run", init_from=prompted)
    assert [path.name for path in tmp_path.iterdir()] == ["ft"]


def test_a_checkpoint_of_another_shape_is_refused(whole: Path, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    text = (run / "config.yaml").read_text(encoding="utf-8").replace("d_ff: 32", "d_ff: 40")
    (run / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="is a checkpoint of another shape"):
        pretrain(read_config(run / "config.yaml"), corpus, run, resume=True)


def test_a_budget_that_holds_no_step_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"training.budget_seconds 0.001 cannot hold one step, which takes about"
    ):
        pretrain(small_config("training.budget_seconds=0.001"), corpus, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_rows_longer_than_the_model_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"rows of \d+ tokens, the model takes 32: prepare the corpus with a smaller"
    ):
        pretrain(small_config("model.num_positions=32"), corpus, tmp_path / "run")


def test_no_model_to_finetune_is_said(mixture: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a run directory nor a model folder"):
        finetune(load_finetune_config("finetune-tiny"), tmp_path / "none", mixture, tmp_path / "run")
    assert not list(tmp_path.iterdir())
