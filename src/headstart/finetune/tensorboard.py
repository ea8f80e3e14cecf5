"""Curves as TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.errors import OptionError
from headstart.finetune.loop import Epoch

VALUES = ("loss", "accuracy", "validation_loss", "validation_accuracy", "rate", "seconds")


@contextmanager
def board(folder: Path | None, name: str, after: int) -> Iterator[Callable[[Epoch], None]]:
    """A function that enters an epoch into a run ``name`` of ``folder``, over what is there of epochs past ``after``;
    without a folder it does nothing. Raises OptionError where the folder cannot be written."""
    if folder is None:
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter

    try:
        writer = SummaryWriter(str(folder / name), purge_step=after + 1)
    except OSError as error:
        raise OptionError(f"{folder} cannot hold event files ({error.strerror}); give another folder.") from None

    def enter(epoch: Epoch) -> None:
        for each in VALUES:
            if (value := getattr(epoch, each)) is not None:
                writer.add_scalar(each, value, epoch.number)
        writer.flush()

    with writer:
        yield enter
