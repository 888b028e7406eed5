"""`metro-t0 prepare` as datatrove tasks on this machine:

python prepare-local.py SOURCE... --tokenizer DIR --out DIR --workers 2
"""

import argparse
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor

from metro_t0.data.datatrove_pipeline import Stage, cluster_stages, run_in_turn
from metro_t0.data.preparation import Settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()

    def executor(stage: Stage) -> LocalPipelineExecutor:
        return LocalPipelineExecutor(**stage.arguments(), workers=min(given.workers, stage.tasks))

    settings = Settings(seed=0)
    stages = cluster_stages(given.sources, given.out, tokenizer=given.tokenizer, settings=settings)
    run_in_turn(stages, executor)


if __name__ == "__main__":
    main()
