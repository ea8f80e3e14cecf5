"""What training calculates with. Weights, their steps, the head and every evaluation stay fp32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from headstart.machine import has_bf16


def chosen(precision: str, device: Accelerator) -> str:
    """fp32, bf16 or fp16 for one of ``PRECISIONS``: auto is what ``accelerate launch`` was told, else bf16 where the
    processor or the accelerator multiplies it itself."""
    if precision != "auto":
        return precision
    if device.mixed_precision in ("bf16", "fp16"):
        return str(device.mixed_precision)
    kind = device.device.type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if kind == "cpu" and has_bf16() else "fp32"


@dataclass(frozen=True)
class Arithmetic:
    """How the layers run while they learn, and what keeps small gradients of fp16 from vanishing: the loss is scaled
    up before them and they down after them (Micikevicius et al. 2018, section 3.2)."""

    kind: str
    dtype: torch.dtype | None
    scaler: Any

    @classmethod
    def of(cls, precision: str, kind: str) -> Arithmetic:
        """For "fp32", "bf16" or "fp16" on a ``kind`` of device."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        return cls(kind, dtype, torch.amp.GradScaler(kind, enabled=precision == "fp16"))

    def autocast(self) -> AbstractContextManager[Any]:
        """The layers of a network run in this precision within it."""
        return nullcontext() if self.dtype is None else torch.autocast(self.kind, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` up, scaled."""
        self.scaler.scale(loss).backward()

    def unscaled(self, optimiser: Any) -> None:
        """Scale the gradients back, in place."""
        self.scaler.unscale_(optimiser)

    def step(self, optimiser: Any) -> None:
        """One step, unless a gradient overflowed."""
        self.scaler.step(optimiser)
        self.scaler.update()
