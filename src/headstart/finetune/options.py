"""Options of fine-tuning. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.errors import OptionError, missing_extra
from headstart.heads.optimizers import OPTIMIZERS
from headstart.images.augment import AUGMENTATIONS

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
TUNING = ("warm_up", "l2_sp", "ema", "label_smoothing", "mixup", "cutmix", "clip")  # what ``parse_tuning`` reads
SHARES = ("layer_decay", "warm_up", "l2_sp", "ema", "label_smoothing")
MIN_BATCH, MAX_BATCH = 16, 128  # images, where none are given
MIN_STEPS = 32  # in an epoch, of batches larger than MIN_BATCH
NOT_IN_RESULT = ("checkpoints", "resume", "tensorboard", "time_limit")  # options that do not change the result


@dataclass(frozen=True)
class FineTuneConfig:
    """How layers of the backbone are trained, starting from the frozen model.

    What is trained: ``unfreeze_from`` is a tap, a layer, the index of a layer or "all"; it and all that follows it are
    trained, as is the head; None: the last two stages. With ``gradual`` the head and the last stage are trained in the
    first epoch, and one more stage in each epoch after it (Howard & Ruder 2018, section 3.3). ``batch_norm`` "frozen"
    keeps the statistics of batch norms and runs them in inference mode; "update" lets those of unfrozen layers follow
    their batches.

    How: ``epochs`` of batches of ``batch_size`` images (None: 16 on a processor; on an accelerator 16 to 128, as many
    as leave 32 steps an epoch) with ``optimizer`` at ``learning_rate``, which rises over the
    share ``warm_up`` of all steps and then falls as a cosine to 0; each stage before the last has ``layer_decay`` times
    the learning rate of the one after it. Every step moves the weights the share ``l2_sp`` of the way back to their
    initial values, less as the learning rate falls (L2-SP, Li et al. 2018, decoupled as in AdamW). ``ema`` is the decay
    of an exponential moving average of the weights, used in place of the last ones (0: none). ``clip`` is the maximum
    norm of the gradient (0: no bound). ``precision`` "fp32", "bf16" or "fp16" is that of the layers in training
    ("auto": bf16 where the machine computes it natively and gains by it); weights and every evaluation are fp32.

    From what: ``augmentation`` is "none", "flip", "light" or "lesson"; ``mixup`` and ``cutmix`` are the alpha of their
    beta distribution (0: none); ``label_smoothing`` is a share of the label; ``class_weights`` makes every class count
    the same, where an image has one.

    For how long: ``patience`` holds out a tenth of the groups and stops after so many epochs without a lower validation
    loss on them; ``stop_at_accuracy`` stops at that training accuracy; ``time_limit`` in seconds lowers the number of
    epochs. ``tensorboard`` is a folder for event files, ``checkpoints`` one from which an interrupted run can
    ``resume``.

    Raises OptionError, and MissingExtraError where TensorBoard is needed and not installed.
    """

    unfreeze_from: str | int | None = None
    epochs: int = 5
    learning_rate: float = 3e-4
    layer_decay: float = 0.75
    optimizer: str = "adamw"
    batch_size: int | None = None
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
        self._check_numbers()
        self._check_stopping()
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("augmentation", ("none", *AUGMENTATIONS)),
            ("batch_norm", ("frozen", "update")),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise OptionError(f"Unknown {name} {getattr(self, name)!r}; choose one of {', '.join(choices)}.")
        if self.resume and self.checkpoints is None:
            raise OptionError("resume needs a folder of checkpoints; give checkpoints too.")
        if self.tensorboard is not None and find_spec("tensorboard") is None:
            raise missing_extra("Event files need TensorBoard, which is not installed", "torch")

    def _check_numbers(self) -> None:
        for name, low, high in (("epochs", 1, 100_000), ("batch_size", 1, 65_536)):
            value = getattr(self, name)
            if name == "batch_size" and value is None:
                continue
            if type(value) is not int or not low <= value <= high:
                raise OptionError(f"{name} {value!r} cannot be used; expected a number from {low} to {high}.")
        if not 0 < self.learning_rate < 1e3:
            raise OptionError(f"Learning rate {self.learning_rate} cannot be used; expected a small number above 0.")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} {getattr(self, name)} cannot be used; expected a share from 0 to 1.")
        for name, meaning in (("clip", "no bound"), ("mixup", "none"), ("cutmix", "none")):
            if not 0 <= getattr(self, name) < 1e6:
                raise OptionError(f"{name} {getattr(self, name)} cannot be used; expected 0 ({meaning}) or more.")
        if self.ema == 1 or self.label_smoothing == 1 or self.layer_decay == 0:
            raise OptionError("ema and label_smoothing must be below 1, layer_decay above 0.")

    def _check_stopping(self) -> None:
        if self.patience is not None and not 1 <= self.patience <= 100_000:
            raise OptionError(f"Patience {self.patience} cannot be used; expected a number of epochs from 1.")
        if self.stop_at_accuracy is not None and not 0 < self.stop_at_accuracy <= 1:
            raise OptionError(f"Accuracy {self.stop_at_accuracy} to stop at cannot be reached; give a share up to 1.")
        if self.time_limit is not None and not self.time_limit > 0:
            raise OptionError(f"A time limit of {self.time_limit} s cannot be kept; give seconds above 0.")

    def batch_size_for(self, device_type: str, images: int) -> int:
        """Return the number of images in a batch for training so many images on "cpu", "cuda" or "mps".

        >>> tuple(FineTuneConfig().batch_size_for("cuda", images) for images in (200, 2_000, 100_000))
        (16, 32, 128)
        """
        if self.batch_size is not None:
            return self.batch_size
        size = MIN_BATCH
        while device_type != "cpu" and size < MAX_BATCH and images >= 2 * size * MIN_STEPS:
            size *= 2
        return size

    def to_dict(self) -> dict[str, Any]:
        """Return the options that change the result, in their JSON form."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in NOT_IN_RESULT}


def parse_tuning(text: str) -> dict[str, Any]:
    """Read ``"ema=0.99,clip=0.5"`` as fields of ``FineTuneConfig``, those that ``TUNING`` names. Raises OptionError.

    >>> parse_tuning("ema=0.99,clip=0.5")
    {'ema': 0.99, 'clip': 0.5}
    """
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name not in TUNING:
            raise OptionError(f"{part!r} cannot be read; expected name=number with a name of {', '.join(TUNING)}.")
        try:
            values[name] = float(value)
        except ValueError:
            raise OptionError(f"{part!r} cannot be read; expected a number after {name}=.") from None
    return values
