"""Ranks on however many processes run this; what each of them got, as JSON.

torchrun --nproc-per-node 2 tests/distributed/ranking_in_processes.py out.json MODEL [fail]
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "evaluation"))

from small_models import WORDS  # noqa: E402

from metro_t0.evaluation.loading import load_model  # noqa: E402
from metro_t0.evaluation.ranking.processes import Processes, rank_together  # noqa: E402

PROMPTS = [" ".join(WORDS[index % 7 : index % 7 + 1 + index % 20]) for index in range(41)]
CHOICES = [[WORDS[(index + k) % 33] for k in range(1 + index % 4)] for index in range(41)]


def main() -> None:
    out, folder, *fail = sys.argv[1:]
    advanced: list[int] = []
    with Processes.from_environment() as processes:
        with processes.together():
            if fail and processes.rank == processes.size - 1:
                raise {"mistake": ValueError, "bug": TypeError}[fail[0]]("the last process is at fault")
            model, tokenizer = load_model(folder, device=processes.device)
        results = rank_together(processes, model, tokenizer, PROMPTS, CHOICES, advance=advanced.append)
        few = rank_together(processes, model, tokenizer, PROMPTS[:1], CHOICES[:1])
        found = {
            "results": [dataclasses.asdict(result) for result in results],
            "few": [dataclasses.asdict(result) for result in few],
            "advanced": sum(advanced),
            "gathered": processes.gather([index * index for index in processes.share(9)]),
            "heard": processes.broadcast(f"process {processes.rank}"),
        }
    Path(f"{out}.{processes.rank}").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
