"""Event files for TensorBoard. Needs PyTorch."""

import pytest
from helpers.tiny_network import INSTALLED, torch_test

from headstart.errors import OptionError

if INSTALLED:
    from headstart.finetune.loop import Epoch
    from headstart.finetune.tensorboard import epoch_writer


@torch_test
def test_event_files_hold_the_epochs_and_a_resumed_run_replaces_those_it_repeats(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def epoch(number, loss):
        return Epoch(number, loss, 0.5, (0.4, 0.6), None, None, 0.1, 1.5)

    with epoch_writer(tmp_path, "fold-1-of-3", 0) as write:
        for number in (1, 2, 3):
            write(epoch(number, 1.0 / number))
    with epoch_writer(tmp_path, "fold-1-of-3", 1) as write:  # interrupted after the first checkpoint
        for number in (2, 3):
            write(epoch(number, 2.0))
    events = EventAccumulator(str(tmp_path / "fold-1-of-3")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 2.0)]
    assert set(events.Tags()["scalars"]) == {"loss", "accuracy", "learning_rate", "seconds"}
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot hold event files"), epoch_writer(tmp_path / "file", "x", 0):
        pass
