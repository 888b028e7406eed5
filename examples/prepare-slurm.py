"""`metro-t0 prepare` as four Slurm job arrays, each waiting for the one before; run it on the login node:

python prepare-slurm.py SOURCE... --tokenizer DIR --out DIR --partition cpu --venv ~/venv
"""

import argparse
from pathlib import Path

from datatrove.executor.slurm import SlurmPipelineExecutor

from metro_t0.data.datatrove_pipeline import cluster_stages
from metro_t0.data.preparation import Settings

# Tasks that look at all documents at once need about 70 bytes a document: this is enough for 400 million.
MEMORY_GB = {"read": 4, "choose": 32, "encode": 4, "finish": 32}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--partition", required=True)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--hours", type=int, default=4)
    given = parser.parse_args()
    settings = Settings(seed=0)
    last = None
    for stage in cluster_stages(given.sources, given.out, tokenizer=given.tokenizer, settings=settings):
        last = SlurmPipelineExecutor(
            **stage.arguments(),
            job_name=f"prepare-{stage.name}",
            partition=given.partition,
            time=f"{given.hours}:00:00",
            mem_per_cpu_gb=MEMORY_GB[stage.name],
            venv_path=str(given.venv / "bin/activate"),
            depends=last,
        )
    last.run()


if __name__ == "__main__":
    main()
