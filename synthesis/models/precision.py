"""In what precision the networks answer.

bfloat16 has 8 bits. A network made of it alone differs from float32 by up to 0.012 in the mean tumour map of
three members (0.03 in one member's), and most of that arises in the first convolution, which sees the images:
grey and white matter differ by a few steps of 1/256. Two parts stay in float32, for 1 % of the time: that
convolution, and scale and shift of the norms. Then it is 0.006, and 0.001 in Δ (`tests/benchmarks`).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from synthesis.models.blocks import Encoder

NORMS = (nn.GroupNorm, nn.LayerNorm)


def fastest_safe(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware computes in it, else float32: emulated, it is far slower."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if fast else torch.float32


def set_precision(net: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a network to the device, to answer in `dtype`. It takes float32 images and maps.

    On CUDA the norms are of `dtype` as well: there they take no other parameters than their input's kind.
    """
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if dtype == torch.float32:
        return
    stems = [cast(nn.Conv2d, module.stages[0]) for module in net.modules() if isinstance(module, Encoder)]
    exact = [*stems, *(m for m in net.modules() if isinstance(m, NORMS) and device.type == "cpu")]
    for module in net.modules():
        if module not in exact:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    for stem in stems:
        stem.register_forward_hook(lambda _net, _inputs, out: cast(Tensor, out).to(dtype))
