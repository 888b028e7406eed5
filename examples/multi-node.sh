#!/usr/bin/env bash
# One training run on several machines: start this with the same words on each of them.
#
#   NODES=4 ENDPOINT=first-machine:29400 examples/multi-node.sh \
#       pretrain --preset base++ --data /shared/corpus --out /shared/runs/base++ --resume
#
# ENDPOINT is any one of the machines and a free port of it, PROCESSES how many to start on each (all its GPUs unless
# given). Corpus and run directory lie where every machine sees them. With --resume the same line starts the run, goes on
# after a machine was lost (three times by itself), and goes on when it is started again by hand.
set -euo pipefail

# Without it, processes that are brought back may look for each other at the addresses of those that died (seen in torch
# 2.13; pytorch issue 135712).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun \
    --nnodes "${NODES:?set NODES to the number of machines}" \
    --nproc-per-node "${PROCESSES:-gpu}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${ENDPOINT:?set ENDPOINT to host:port of one of the machines}" \
    --rdzv-id "${RUN_ID:-metro-t0}" \
    --max-restarts 3 \
    -m metro_t0.cli.main "$@"
