"""Mixed precision: what layers compute with in training. Weights, the optimizer, the head and evaluations are fp32."""

from __future__ import annotations

from collections.abc import Container
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from headstart.finetune.network import Network
from headstart.machine import has_bf16

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, accelerator: Accelerator, *, bf16_pays: bool = True) -> str:
    """Return "fp32", "bf16" or "fp16" for one of ``options.PRECISIONS``.

    "auto" is the precision given to ``accelerate launch``, otherwise bf16 where the accelerator computes it natively,
    or the processor does and ``bf16_pays`` there, otherwise fp32.
    """
    if precision != "auto":
        return precision
    if accelerator.mixed_precision in DTYPES:
        return str(accelerator.mixed_precision)
    device_type = accelerator.device.type
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device_type == "cpu" and bf16_pays and has_bf16() else "fp32"


def bf16_pays(network: Network, trained: Container[str]) -> bool:
    """Return whether bf16 makes the training of the tensors named ``trained`` faster on processors that compute it.

    Not for networks of Keras, whose batch norms go back to fp32, nor where convolutions of single channels are trained
    before the last two stages: their gradients on large maps take longer in bf16 (docs/log.md has the figures).
    """
    if network.provider == "keras":
        return False
    early = [name for layer in network.layers if layer.stage < network.stages - 2 for name in layer.tensors]
    modules = {network.get_submodule(name.rpartition(".")[0]) for name in early if name in trained}
    return all(getattr(module, "groups", 1) == 1 for module in modules)


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

    def autocast(self, *, cache: bool = True) -> AbstractContextManager[Any]:
        """Return a context in which layers compute in this precision; with ``cache`` a weight is cast once in it."""
        if self.dtype is None:
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast(self.device_type, self.dtype, cache_enabled=cache)
        return context

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
