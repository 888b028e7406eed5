"""Pretraining that goes on from an official checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL_RUN, losses, small_config

from metro_t0.data.prepare import prepare
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer
from metro_t0.training.run import pretrain
from metro_t0.training.starting_point import model_config, pretrained_model
from official_checkpoints import checkpoint_of
from tiny_networks import randomize

BUILDS = {
    "roberta-token_pos_norm": ["model.rtd_head=roberta", "model.auxiliary_sharing=token_pos_norm"],
    "simple-token": ["model.rtd_head=simple", "model.auxiliary_sharing=token"],
    "none-none": ["model.rtd_head=none", "model.auxiliary_sharing=none", "objective.rtd_weight=0"],
}
# The shape of the golden checkpoints.
GOLDEN = """
model.d_model=32 model.d_kv=8 model.d_ff=64 model.num_heads=4 model.num_layers=3 model.num_decoder_layers=3
model.num_auxiliary_layers=2 model.num_positions=64 model.max_positions=64
""".split()  # noqa: SIM905
STILL = ["training.steps=1", "optimizer.learning_rate=1e-12"]
FIVE = ["training.steps=5", "optimizer.learning_rate=1e-3"]


def official(tmp_path: Path, corpus: Path, *overrides: str) -> tuple[Path, MetroT0ForPreTraining]:
    """A checkpoint of the small runs' shape over the corpus's vocabulary, and the model that it holds."""
    tokenizer = MetroT0Tokenizer.from_pretrained(str(corpus / "tokenizer"))
    config = model_config(small_config("model.max_positions=64", *overrides), tokenizer)
    model = randomize(MetroT0ForPreTraining(config), scale=0.1)
    path = tmp_path / "checkpoint_last.pt"
    torch.save(checkpoint_of(model), path)
    return path, model


def close(run: Path, expected: MetroT0ForConditionalGeneration, kind: type[Any]) -> None:
    here = kind.from_pretrained(run / "model").state_dict()
    there = expected.state_dict()
    for name, value in here.items():
        torch.testing.assert_close(value, there[name], atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("build", BUILDS)
def test_a_run_starts_where_the_checkpoint_ended(build: str, corpus: Path, tmp_path: Path) -> None:
    path, model = official(tmp_path, corpus, *BUILDS[build])
    run = pretrain(
        small_config("model.max_positions=64", *BUILDS[build], *STILL),
        corpus,
        tmp_path / "run",
        init_from=path,
    )
    close(run, model, MetroT0ForPreTraining)


def test_the_baseline_takes_the_main_model(corpus: Path, tmp_path: Path) -> None:
    path, model = official(tmp_path, corpus)
    config = small_config("model.max_positions=64", *STILL, preset="tiny-t5")
    close(pretrain(config, corpus, tmp_path / "run", init_from=path), model, MetroT0ForConditionalGeneration)


def test_what_does_not_fit_is_one_line_and_leaves_nothing(corpus: Path, tmp_path: Path) -> None:
    path, _ = official(tmp_path, corpus)
    for overrides, message in (
        (
            ["model.d_ff=48"],
            r"checkpoint_last\.pt cannot be taken: its d_ff is 32, this configuration's is 48",
        ),
        (["model.rtd_head=simple"], "its rtd_head is roberta, this configuration's is simple"),
        (["model.auxiliary_sharing=token"], "its auxiliary_sharing is token_pos_norm"),
        (
            ["model.max_positions=512"],
            r"reaches 63 tokens far, .* 128: set .*=128 and model\.max_positions=64",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            pretrain(
                small_config("model.max_positions=64", *overrides), corpus, tmp_path / "run", init_from=path
            )
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["cfg"]["task"]["tokens_per_sample"] = 511
    torch.save(checkpoint, path)
    with pytest.raises(
        ValueError, match=r"another vocabulary than the corpus: .*, 511 of them sentinels, not"
    ):
        pretrain(small_config(), corpus, tmp_path / "run", init_from=path)
    torch.save({**checkpoint, "args": os.system}, path)
    with pytest.raises(ValueError, match=r"it asks for posix\.system"):
        pretrain(small_config(), corpus, tmp_path / "run", init_from=path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged or of another kind"):
        pretrain(small_config(), corpus, tmp_path / "run", init_from=path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_in_place_of_a_model(corpus: Path, tmp_path: Path) -> None:
    path, _ = official(tmp_path, corpus)
    with pytest.raises(ValueError, match=r"is a file: a model is a folder.* pretrain --init-from$"):
        pretrained_model(path, 0.1)


@pytest.fixture(scope="module")
def golden_corpus(golden: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of the same vocabulary size as the golden checkpoints: 200 pieces and 40 sentinels."""
    folder = tmp_path_factory.mktemp("golden")
    source = corpus.parent / "topics.jsonl"
    text = [source.read_text(encoding="utf-8")[:60_000]]
    train_tokenizer(text, 200, folder / "tokenizer", num_sentinel_tokens=40)
    prepare(
        [source], folder / "prepared", tokenizer=folder / "tokenizer", validation_fraction=0.1, max_length=64
    )
    return folder / "prepared"


@pytest.mark.parametrize("build", BUILDS)
def test_official_checkpoints_train_on_save_and_load(
    build: str, golden: Path, golden_corpus: Path, tmp_path: Path
) -> None:
    path = golden / "pretrain_tiny" / f"{build}.pt"
    config = small_config(*GOLDEN, *BUILDS[build], *FIVE)
    run = pretrain(config, golden_corpus, tmp_path / "run", init_from=path)
    assert list(losses(run)) == [1, 2, 3, 4, 5]
    before = MetroT0ForPreTraining.from_fairseq(path)
    after = MetroT0ForPreTraining.from_pretrained(run / "model")
    assert after.config.auxiliary_sharing == before.config.auxiliary_sharing
    moved = {
        name
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert {"shared.weight", "lm_head.weight", "encoder.block.2.layer.1.DenseReluDense.wi.weight"} <= moved
    after.save_pretrained(tmp_path / "again")
    again = MetroT0ForPreTraining.from_pretrained(tmp_path / "again")
    ids = torch.tensor([[0, 5, 9, 30, 2]])
    batch = {"original_ids": ids, "masked_ids": ids, "mask": ids == 9, "replaced_ids": ids}
    objective = MetroObjective(rtd_weight=50.0 if after.rtd_head else 0.0)
    assert after.eval()(**batch, objective=objective).loss == again.eval()(**batch, objective=objective).loss


@pytest.mark.slow
def test_the_command_goes_on_from_an_official_checkpoint(
    golden: Path, golden_corpus: Path, tmp_path: Path
) -> None:
    path = golden / "pretrain_tiny" / "simple-token.pt"
    command = [sys.executable, "-m", "metro_t0.cli.main", "pretrain", "--preset", "tiny"]
    places = ["--data", str(golden_corpus), "--out", str(tmp_path / "run"), "--init-from", str(path)]
    settings = [*SMALL_RUN, *GOLDEN, *BUILDS["simple-token"], *FIVE]
    done = subprocess.run([*command, *places, *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(losses(tmp_path / "run")) == [1, 2, 3, 4, 5]
