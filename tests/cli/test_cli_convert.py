"""``metro-t0 convert`` as a user runs it: what it prints and makes, and one line for each mistake."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from metro_t0.cli.main import main
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer
from tiny_networks import tiny_config


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    tokenizer = train_tokenizer(["The cat sat on the mat, and the dog did not."] * 20, 85, folder)
    config = tiny_config(vocab_size=len(tokenizer), num_sentinel_tokens=512)
    MetroT0ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> object:
    """The exit code, the command run in this process."""
    monkeypatch.setattr(sys, "argv", ["metro-t0", "convert", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_there_and_back(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for from_, more in (
        (source, ["--out", "hub", "--license", "mit", "--language", "en"]),
        ("hub", ["--out", "published", "--to", "published"]),
        ("published", ["--out", "again"]),
    ):
        assert run(monkeypatch, from_, *more) == 0
        assert capsys.readouterr().out == f"{more[1]}\n"
    first, last = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "again"))
    assert all((first[name] == tensor).all() for name, tensor in last.items()) and first.keys() == last.keys()
    assert "license: mit" in (tmp_path / "hub" / "README.md").read_text()
    assert len(MetroT0Tokenizer.from_pretrained(tmp_path / "again")) == first["shared.weight"].shape[0]
    assert MetroT0Config.from_pretrained(tmp_path / "published").model_type == "fairseq_t5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "out"], "there is no model at nowhere"),
        (["empty", "--out", "out"], "empty is neither a run directory nor a model folder"),
        (["run", "--out", "out"], "run is a run that has no final model yet: finish it with --resume"),
        (["SOURCE", "--out", "taken"], "taken already holds something"),
        (["SOURCE", "--out", "a-file"], "a-file is a file"),
        (["SOURCE", "--out", "out", "--tokenizer", "empty"], "there is no tokenizer in empty"),
        (["no.pt", "--out", "out"], "no.pt cannot be read as a fairseq checkpoint"),
        (["SOURCE", "--out", "out", "--evaluation", "empty"], "empty holds no results.json"),
        (["SOURCE", "--out", "out", "--pretraining", "empty"], "empty is not a run directory"),
        (["SOURCE", "--out", "out", "--base-model", "a b"], "'a b' is no name on the Hub"),
        (["SOURCE", "--out", "out", "--private"], "--private is of the repository that --push makes"),
        (["SOURCE", "--out", "out", "--push", "model"], "'model' is no name for a repository"),
        (["SOURCE", "--out", "out", "--to", "published", "--license", "mit"], "makes no model card"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    source: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "run", "taken"):
        (tmp_path / folder).mkdir()
    for file in ("run/config.yaml", "taken/file", "a-file", "no.pt"):
        (tmp_path / file).write_text("kind: pretrain\n")
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, *(source if word == "SOURCE" else word for word in arguments)) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("metro-t0: ") and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
