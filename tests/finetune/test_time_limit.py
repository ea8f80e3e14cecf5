"""How long a fine-tuning will take. Needs PyTorch."""

import pytest
from helpers.tiny_network import INSTALLED, PLAIN, tiny_network, tiny_task, torch_test

from headstart.errors import BackboneError, OptionError
from headstart.finetune import FineTuneConfig

if INSTALLED:
    import torch

    from headstart.finetune.time_limit import Duration, estimate_duration
    from headstart.finetune.verdict import ALPHAS


@torch_test
def test_out_of_memory_halves_the_batch_that_is_timed():
    sizes = []

    def time_training(task, rows):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("injected")
        return 1.0

    task = tiny_task(tiny_network(), FineTuneConfig(**{**PLAIN, "batch_size": 8}))
    duration = estimate_duration(task, 3, time_training)
    assert sizes == [8, 4, 2, 2]
    training = 1.0 / 2 * 12 * 3  # seconds of an image, images, trainings on each
    prediction = duration.evaluation / (len(ALPHAS) + 3)  # of every image once, in the fold that leaves it out
    assert duration.epoch == pytest.approx(training + prediction)

    def fail(task, rows):
        raise torch.OutOfMemoryError("injected")

    with pytest.raises(BackboneError, match="too small to train on one image"):
        estimate_duration(task, 3, fail)


@torch_test
def test_a_time_limit_lowers_the_number_of_epochs():
    duration = Duration(epoch=2.0, evaluation=10.0)
    assert duration.total(5) == 20
    assert duration.limit_epochs(FineTuneConfig(epochs=5)) == 5
    assert duration.limit_epochs(FineTuneConfig(epochs=5, time_limit=15)) == 2
    assert duration.limit_epochs(FineTuneConfig(epochs=5, time_limit=1000)) == 5
    with pytest.raises(OptionError, match="about 12 s in all, more than the limit of 11 s"):
        duration.limit_epochs(FineTuneConfig(epochs=5, time_limit=11))
