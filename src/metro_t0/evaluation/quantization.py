"""Weights of 8 bits on a CPU: every linear layer of a model, by torch's FBGEMM kernels.

model = quantize(model)            # in place; embeddings, LayerNorms and attention stay in float32

A weight is rounded to 8 bits with one scale an output, an input with one scale a row of it: what a prompt gives does
not depend on the prompts beside it. Of the ways there are, these kernels are the fastest (docs/inference.md).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows are scaled to a largest magnitude of 1; a row of zeros stays one.
_SMALLEST = 1e-30


class Int8Linear(nn.Module):
    """``nn.Linear`` with a weight of 8 bits; inputs and outputs are float32.

    Args:
        linear: the layer whose weight and bias are taken over.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=_SMALLEST)
        with warnings.catch_warnings():
            # torch means to drop quantized tensors some day; it packs a weight for FBGEMM from nothing else.
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)
            rounded = torch.quantize_per_channel(
                weight, scales.double(), torch.zeros(len(scales), dtype=torch.long), 0, torch.qint8
            )
        self._packed = torch.ops.quantized.linear_prepack(rounded, None)
        bias = linear.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)
        # Without VNNI the kernel adds products of pairs in 16 bits, which 8 by 8 bits can overflow and 7 by 8 cannot.
        self._levels = 127 if _has_vnni() else 63

    def weight(self) -> torch.Tensor:
        """The rounded weight in float32, ``[outputs, inputs]``; a method, as with torch's own quantized layers."""
        return torch.ops.quantized.linear_unpack(self._packed)[0].dequantize()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``[..., inputs]`` to ``[..., outputs]``."""
        scales = inputs.abs().amax(dim=-1, keepdim=True).clamp_(min=_SMALLEST)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            inputs / scales, 1 / self._levels, self._levels + 1, self._packed
        )
        return product * scales if self.bias is None else torch.addcmul(self.bias, product, scales)

    def extra_repr(self) -> str:
        """Widths, as ``nn.Linear`` shows them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        raise ValueError("a model with int8 weights is not saved: keep the folder that it was loaded from")


def quantize(model: PreTrainedModel) -> PreTrainedModel:
    """The model with every linear layer in 8 bits, changed in place.

    Args:
        model: in float32, on the CPU; ours, or another encoder-decoder of transformers.

    Raises:
        ValueError: the model is elsewhere or in another precision, or this torch has no FBGEMM kernels.
    """
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ValueError(
            f"int8 weights are for a float32 model on the CPU, not {model.dtype} on {model.device}"
        )
    if not int8_is_supported():
        raise ValueError(
            "int8 weights need torch's FBGEMM kernels (x86-64): take --precision fp32 or bf16 here"
        )
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return model


def int8_is_supported() -> bool:
    """Whether this build of torch has the kernels."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def multiplies_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 itself; elsewhere it is emulated, and slow."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _has_vnni() -> bool:
    return bool(_capabilities().get("avx512_vnni"))


def _capabilities() -> dict[str, Any]:
    """What torch knows of the processor, by torch's names; nothing with a torch that does not tell."""
    ask = getattr(torch.cpu, "get_capabilities", dict)
    return dict(ask())
