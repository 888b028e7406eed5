"""Attention with gradients on a CPU: torch's fused kernel beside a few rows at a time, milliseconds on one core.

    python benchmarks/attention.py

8 rows, 12 heads, 512 tokens, head width 64, bf16; CPU time of forward and backward, the least of six runs in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from metro_t0.modeling.row_attention import row_attention

SHAPE = (8, 512, 12, 64)


def inputs(number: int) -> list[torch.Tensor]:
    made = [torch.randn(SHAPE, dtype=torch.bfloat16).mul_(0.3).transpose(1, 2) for _ in range(number)]
    return [tensor.requires_grad_() for tensor in made]


def fused(qkv: list[torch.Tensor], bias: torch.Tensor | None, causal: bool, dropout: float) -> torch.Tensor:
    mask = None if bias is None else bias.to(qkv[0].dtype)
    return F.scaled_dot_product_attention(
        *qkv, attn_mask=mask, is_causal=causal, dropout_p=dropout, scale=1.0
    )


def by_rows(qkv: list[torch.Tensor], bias: torch.Tensor | None, causal: bool, dropout: float) -> torch.Tensor:
    return row_attention(*qkv, bias=bias, mask=None, causal=causal, dropout=dropout)


def milliseconds(
    attend: Callable[..., torch.Tensor], bias: torch.Tensor | None, causal: bool, dropout: float
) -> float:
    *qkv, gradient = inputs(4)
    begun = time.process_time()
    attend(qkv, bias, causal, dropout).backward(gradient.detach())
    return 1e3 * (time.process_time() - begun)


def main() -> None:
    torch.set_num_threads(1)
    bias = torch.randn(1, 12, 512, 512, requires_grad=True)
    for name, *settings in (
        ("cross-attention", None, False, 0.0),
        ("causal", None, True, 0.0),
        ("relative bias", bias, False, 0.0),
        ("dropout 0.1", None, False, 0.1),
        ("relative bias, dropout 0.1", bias, False, 0.1),
    ):
        pairs = [(milliseconds(fused, *settings), milliseconds(by_rows, *settings)) for _ in range(7)][1:]
        one, other = (min(column) for column in zip(*pairs, strict=True))
        print(f"{name:28} fused {one:5.0f} ms   rows {other:5.0f} ms   {one / other:.1f} times")


if __name__ == "__main__":
    main()
