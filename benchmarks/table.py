"""The table of measured steps, in Markdown, from ``benchmarks/results/step-*.json``.

python benchmarks/table.py            # what the README holds
"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def table() -> str:
    """One row a measured step; each file's own machine and matrix rate above its rows."""
    lines = ["| `base`, 512 tokens a row | tokens/s | share of the machine's matrix rate |", "|---|---|---|"]
    for file in sorted(RESULTS.glob("step-*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        facts = record["environment"]
        device = ", ".join(facts.get("gpus", [])) or f"{facts['cores']} cores of {facts['processor'].strip()}"
        precision = record["command"].rsplit("--precision ", 1)[1]
        rate = record["matrix_rate_gflops"][precision]
        lines.append(f"| **{precision} on {device}**, {record['date']} | | {rate:,.0f} GFLOP/s |")
        for name, step in record["steps"].items():
            share = step.get("share_of_matrix_rate")
            told = "" if share is None else f"{share:.0%}"
            lines.append(f"| {name} | {step['tokens_per_second']:,.0f} | {told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
