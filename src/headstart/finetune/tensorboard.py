"""Event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.errors import OptionError
from headstart.finetune.loop import Epoch

SCALARS = (
    "loss",
    "accuracy",
    "validation_loss",
    "validation_accuracy",
    "held_out_loss",
    "held_out_accuracy",
    "learning_rate",
    "seconds",
)


@contextmanager
def epoch_writer(folder: Path | None, run_name: str, last_epoch: int) -> Iterator[Callable[[Epoch], None]]:
    """Open the event files of a run; give a function that writes the scalars of an epoch.

    Epochs after ``last_epoch`` that the files hold already are replaced. Without a folder nothing is written. Raises
    OptionError where the folder cannot be written.
    """
    if folder is None:
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter

    try:
        writer = SummaryWriter(str(folder / run_name), purge_step=last_epoch + 1)
    except OSError as error:
        raise OptionError(f"{folder} cannot hold event files ({error.strerror}); give another folder.") from None

    def write(epoch: Epoch) -> None:
        for name in SCALARS:
            value = getattr(epoch, name)
            if value is not None:
                writer.add_scalar(name, value, epoch.number)
        writer.flush()

    with writer:
        yield write
