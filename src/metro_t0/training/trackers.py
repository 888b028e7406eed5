"""TensorBoard and Weights & Biases beside ``metrics.jsonl``: the same lines, under the same names.

    check_installed(["tensorboard"])                                   # before the run begins
    with RunMetrics(run, keep_until=20, trackers=["tensorboard", "wandb"], config={...}) as metrics:
        metrics.append({"kind": "train", "step": 21, "loss": 4.2})     # train/loss at step 21

Both are extras of the package and imported only when asked for. A resumed run goes on in the same TensorBoard folder,
where what an earlier process wrote after the checkpoint is superseded, and in the same W&B run, whose history cannot be
rewritten: there the earlier process's values stand and their steps are not sent twice. What W&B had not written when a
process was killed outright, the last second of it, is in ``metrics.jsonl`` alone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from metro_t0.training.metrics import MetricsFile

TrackerName = Literal["tensorboard", "wandb"]

_FLUSH = "x_transaction_log_flush_interval"


class Tracker(Protocol):
    """Somewhere else that metrics go."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take in the numbers of one line, by ``kind/name``."""
        ...

    def close(self, failed: bool) -> None:
        """Write what is left; ``failed`` = the run did not come to its end."""
        ...


def check_installed(trackers: Sequence[str]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        ValueError: names it and the command that installs it.
    """
    for name in trackers:
        found = find_spec(name)
        # A folder of that name where the program was started is found too, as a package without a file.
        if found is None or found.origin is None:
            raise ValueError(
                f"training.trackers has {name}, which is not installed: pip install 'metro-t0[{name}]'"
            )


class RunMetrics:
    """``metrics.jsonl``, ``samples.jsonl`` and whichever trackers are asked for.

    Args:
        run: its folder.
        keep_until: the last step that stands; what was written of later ones is dropped.
        trackers: names, installed.
        config: the run's settings, for W&B.
        written: whether this process is the one that writes; on others lines go nowhere.
        samples: whether there will be samples.

    Raises:
        ValueError: W&B cannot start (nobody is logged in).
    """

    def __init__(
        self,
        run: Path,
        keep_until: int = 0,
        trackers: Sequence[TrackerName] = (),
        config: Mapping[str, Any] | None = None,
        written: bool = True,
        samples: bool = False,
    ) -> None:
        self._trackers: list[Tracker] = []
        self._file = MetricsFile(run / "metrics.jsonl", keep_until) if written else None
        # A run that begins shows its rows before the first update, as of step 0.
        kept = keep_until or -1
        self._samples = MetricsFile(run / "samples.jsonl", kept) if written and samples else None
        if not written:
            return
        if "tensorboard" in trackers:
            self._trackers.append(_TensorBoard(run / "tensorboard", keep_until))
        if "wandb" in trackers:
            self._trackers.append(_WeightsAndBiases(run, config or {}))

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line: ``kind``, ``step`` and numbers."""
        if self._file is not None:
            self._file.append(line)
        numbers = {
            f"{line['kind']}/{name}": float(value)
            for name, value in line.items()
            if isinstance(value, int | float) and name != "step"
        }
        for tracker in self._trackers:
            tracker.add(line["step"], numbers)

    def append_samples(self, line: Mapping[str, Any]) -> None:
        """Write one line of samples (see samples.py); trackers get none."""
        if self._samples is not None:
            self._samples.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._file, self._samples):
            if file is not None:
                file.close()
        for tracker in self._trackers:
            tracker.close(failed=kind is not None)


class _TensorBoard:
    def __init__(self, folder: Path, keep_until: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # Readers drop what earlier files of the folder say of this step and later ones.
        self._writer = SummaryWriter(log_dir=str(folder), purge_step=keep_until + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """One W&B run for the whole life of a run; its id, and the last step sent, are in ``wandb/metro-t0.json``."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        import wandb

        self._record = run / "wandb" / "metro-t0.json"
        # W&B writes its file every 15 seconds if not told otherwise; older versions cannot be told.
        often: dict[str, Any] = {_FLUSH: 1.0} if _FLUSH in wandb.Settings.model_fields else {}
        stored = json.loads(self._record.read_text(encoding="utf-8")) if self._record.is_file() else {}
        self._id, self._sent = stored.get("id", secrets.token_hex(4)), stored.get("sent", 0)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "metro-t0"),
                id=self._id,
                name=run.name,
                dir=str(run),
                config=dict(config),
                resume="allow",
                settings=wandb.Settings(console="off", **often),
            )
        except wandb.Error as error:
            raise ValueError(
                f"training.trackers has wandb, which cannot start ({' '.join(str(error).split())}): run wandb login, "
                "or set WANDB_MODE=offline"
            ) from error
        self._remember(self._sent)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._sent:
            self._run.log(dict(values), step=step)
            self._remember(step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))

    def _remember(self, sent: int) -> None:
        self._record.parent.mkdir(exist_ok=True)
        aside = self._record.with_name(f".{self._record.name}.partial")
        aside.write_text(json.dumps({"id": self._id, "sent": sent}), encoding="utf-8")
        aside.replace(self._record)
