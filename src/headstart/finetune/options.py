"""What can be said about a fine-tuning. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.errors import MissingExtraError, OptionError
from headstart.heads.optimizers import OPTIMISERS
from headstart.images.augment import AUGMENTATIONS

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
TUNING = ("warm_up", "l2_sp", "ema", "label_smoothing", "mixup", "cutmix", "clip")
SHARES = ("layer_decay", "warm_up", "l2_sp", "ema", "label_smoothing")


@dataclass(frozen=True)
class FineTuning:
    """How layers of the backbone are trained on, starting from the frozen model.

    ``unfreeze_from`` a tap, a layer, a layer's number or "all": it and all that comes after it is trained, as is the
    head; None: the last two stages. ``epochs`` of batches of ``batch`` pictures with ``optimiser`` at ``rate``, which
    rises over the share ``warm_up`` of all steps and then falls as a cosine to 0; each stage before the last learns
    ``layer_decay`` times as fast as the one after it. With ``gradual`` the head and the last stage learn in the first
    epoch, and one stage more in each epoch after it (Howard & Ruder 2018, section 3.3). Every step pulls the weights
    back to where they started by the share ``l2_sp`` of the way, less as the rate falls (L2-SP, Li et al. 2018,
    decoupled as in AdamW). ``ema`` is the decay of an average of the weights that is used in place of the last ones (0:
    none). ``label_smoothing``, ``augmentation`` ("none", "flip", "light", "lesson"), and ``mixup`` and ``cutmix`` (the
    alpha of their beta distribution, 0: none) change what is learned from, ``class_weights`` makes classes count alike,
    ``clip`` bounds the gradient's length (0: no bound).
    ``precision`` "fp32", "bf16" or "fp16" is what layers run in while they learn ("auto": bf16 where the machine
    multiplies it itself); weights and every evaluation are fp32.
    ``batch_norm`` "frozen" keeps statistics and inference mode, "update" lets unfrozen layers follow their batches.
    ``patience`` keeps a tenth of the groups back and stops after so many epochs without a lower loss on
    them, ``stop_at_accuracy`` at that accuracy in training; ``time_limit`` in seconds lowers the number of epochs.
    ``tensorboard`` is a folder for event files, ``checkpoints`` one that a killed run can ``resume`` from.
    Raises OptionError, and MissingExtraError where ``tensorboard`` is not installed.
    """

    unfreeze_from: str | int | None = None
    epochs: int = 5
    rate: float = 3e-4
    layer_decay: float = 0.75
    optimiser: str = "adamw"
    batch: int = 16
    gradual: bool = False
    warm_up: float = 0.1
    l2_sp: float = 0.001
    ema: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    augmentation: str = "light"
    class_weights: bool = False
    clip: float = 1.0
    precision: str = "auto"
    batch_norm: str = "frozen"
    patience: int | None = None
    stop_at_accuracy: float | None = None
    time_limit: float | None = None
    tensorboard: Path | None = None
    checkpoints: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (("epochs", 1, 100_000), ("batch", 1, 65_536)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise OptionError(f"{name} {value!r} cannot be used; expected a number from {low} to {high}.")
        if not 0 < self.rate < 1e3:
            raise OptionError(f"Learning rate {self.rate} cannot be used; expected a small number above 0.")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} {getattr(self, name)} cannot be used; expected a share from 0 to 1.")
        for name, meaning in (("clip", "no bound"), ("mixup", "none"), ("cutmix", "none")):
            if not 0 <= getattr(self, name) < 1e6:
                raise OptionError(f"{name} {getattr(self, name)} cannot be used; expected 0 ({meaning}) or more.")
        if self.ema == 1 or self.label_smoothing == 1 or self.layer_decay == 0:
            raise OptionError("ema and label_smoothing must be below 1, layer_decay above 0.")
        for name, known in (
            ("optimiser", OPTIMISERS),
            ("augmentation", ("none", *AUGMENTATIONS)),
            ("batch_norm", ("frozen", "update")),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                raise OptionError(f"Unknown {name} {getattr(self, name)!r}; choose one of {', '.join(known)}.")
        if self.patience is not None and not 1 <= self.patience <= 100_000:
            raise OptionError(f"Patience {self.patience} cannot be used; expected a number of epochs from 1.")
        if self.stop_at_accuracy is not None and not 0 < self.stop_at_accuracy <= 1:
            raise OptionError(f"Accuracy {self.stop_at_accuracy} to stop at cannot be reached; give a share up to 1.")
        if self.time_limit is not None and not self.time_limit > 0:
            raise OptionError(f"A time limit of {self.time_limit} s cannot be kept; give seconds above 0.")
        if self.resume and self.checkpoints is None:
            raise OptionError("There is nothing to resume from; name the folder of checkpoints.")
        if self.tensorboard is not None and find_spec("tensorboard") is None:
            raise MissingExtraError("Event files need tensorboard; run: pip install 'headstart[zoo]'")

    def to_dict(self) -> dict[str, Any]:
        """What changes the result, as JSON holds it."""
        places = ("checkpoints", "resume", "tensorboard", "time_limit")
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in places}


def parse(text: str) -> dict[str, Any]:
    """``"ema=0.99,clip=0.5"`` as values of ``FineTuning``, those of ``TUNING``. Raises OptionError.

    >>> parse("ema=0.99,clip=0.5")
    {'ema': 0.99, 'clip': 0.5}
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name not in TUNING:
            raise OptionError(f"{part!r} cannot be read; expected name=number with a name of {', '.join(TUNING)}.")
        try:
            found[name] = float(value)
        except ValueError:
            raise OptionError(f"{part!r} cannot be read; expected a number after {name}=.") from None
    return found
