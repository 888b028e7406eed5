"""`metro-t0 prepare` as datatrove tasks on a Ray cluster, or on this machine where there is none:

python prepare-ray.py SOURCE... --tokenizer DIR --out DIR
"""

import argparse
from pathlib import Path

from datatrove.executor.ray import RayPipelineExecutor

from metro_t0.data.datatrove_pipeline import Stage, cluster_stages, run_in_turn
from metro_t0.data.preparation import Settings


def executor(stage: Stage) -> RayPipelineExecutor:
    return RayPipelineExecutor(**stage.arguments(), cpus_per_task=1, mem_per_cpu_gb=2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    settings = Settings(seed=0)
    run_in_turn(
        cluster_stages(given.sources, given.out, tokenizer=given.tokenizer, settings=settings), executor
    )


if __name__ == "__main__":
    main()
