"""Self-attention by the fastest means at hand, all of them agreeing."""

from __future__ import annotations

import inspect
import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    from flash_attn import flash_attn_func
except ImportError:  # the `flash` extra; CUDA only
    flash_attn_func = None

#: How to compute it: the best that runs, flash-attn, PyTorch's fused kernels, or plain arithmetic.
Means = Literal["auto", "flash", "sdpa", "math"]
HEAD_DIM = 64
HALF = (torch.float16, torch.bfloat16)
#: The largest head that flash-attn takes.
MOST_HEAD_DIM = 256
#: Compute capability 9.x: there cuDNN's kernel is 1.7–2.3 times as fast as PyTorch's flash kernel, on other
#: chips it is not (measured for huggingface/transformers#48163). Newer PyTorch puts it first by itself.
HOPPER = 9
ON_HOPPER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
CAN_ORDER = "set_priority" in inspect.signature(sdpa_kernel).parameters


def attend(query: Tensor, key: Tensor, value: Tensor, means: Means = "auto") -> Tensor:
    """Return softmax(q·kᵀ/√d)·v.

    Parameters
    ----------
    query, key, value : Tensor
        (B, heads, tokens, d).
    means : str
        "auto" takes flash-attn where it is installed and the tensors are half precision on CUDA, else
        PyTorch's kernels, which themselves end in plain arithmetic where no fused one runs.

    Raises
    ------
    ValueError
        When flash-attn is demanded and cannot run on these tensors.
    """
    on_cuda_in_half = query.is_cuda and query.dtype in HALF
    flash_runs = flash_attn_func is not None and on_cuda_in_half and query.shape[-1] <= MOST_HEAD_DIM
    if means == "flash" and not flash_runs:
        raise ValueError("flash-attn needs its package, CUDA and half precision.")
    if means == "math":
        weights = (query @ key.transpose(-2, -1)) / math.sqrt(query.shape[-1])
        return weights.softmax(dim=-1) @ value
    if flash_runs and means != "sdpa":
        # flash-attn wants (B, tokens, heads, d)
        out = flash_attn_func(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return cast(Tensor, out).transpose(1, 2)
    if CAN_ORDER and on_cuda_in_half and torch.cuda.get_device_capability(query.device)[0] == HOPPER:
        with sdpa_kernel(ON_HOPPER, set_priority=True):
            return functional.scaled_dot_product_attention(query, key, value)
    return functional.scaled_dot_product_attention(query, key, value)


class SelfAttention(nn.Module):
    """Multi-head self-attention over (B, tokens, dim)."""

    def __init__(self, dim: int, heads: int, means: Means = "auto") -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels do not divide into {heads} heads.")
        self.heads = heads
        self.means: Means = means
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, tokens, dim)."""
        batch, count, dim = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, dim // self.heads)  # (B, N, 3, heads, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # 3 × (B, heads, N, d)
        mixed = attend(query, key, value, self.means)
        return cast(Tensor, self.out(mixed.transpose(1, 2).reshape(batch, count, dim)))  # (B, N, dim)
