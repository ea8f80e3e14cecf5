"""Mixed precision: what layers compute with in training. Weights, the optimizer, the head and evaluations are fp32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from headstart.machine import has_bf16

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, accelerator: Accelerator) -> str:
    """Return "fp32", "bf16" or "fp16" for one of ``options.PRECISIONS``.

    "auto" is the precision given to ``accelerate launch``, otherwise bf16 where the processor or the accelerator
    computes it natively, otherwise fp32.
    """
    if precision != "auto":
        return precision
    if accelerator.mixed_precision in DTYPES:
        return str(accelerator.mixed_precision)
    device_type = accelerator.device.type
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device_type == "cpu" and has_bf16() else "fp32"


@dataclass(frozen=True)
class MixedPrecision:
    """What layers compute with in training on a type of device, and the scaling of the loss.

    With fp16 the loss is scaled up before the gradients are computed, and the gradients down after it, so that small
    ones do not vanish (Micikevicius et al. 2018, section 3.2). ``dtype`` None is fp32.
    """

    device_type: str
    dtype: torch.dtype | None
    scaler: Any

    @classmethod
    def of(cls, precision: str, device_type: str) -> MixedPrecision:
        """Make it for "fp32", "bf16" or "fp16" on "cpu", "cuda" or "mps"."""
        scaler = torch.amp.GradScaler(device_type, enabled=precision == "fp16")
        return cls(device_type, DTYPES.get(precision), scaler)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which layers compute in this precision."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device_type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the scaled ``loss`` to those of the parameters."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: Any) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, in place."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Any) -> None:
        """Make one step of the optimizer, unless a gradient overflowed, and adapt the scale."""
        self.scaler.step(optimizer)
        self.scaler.update()
