"""How long a fine-tuning will take. Needs PyTorch."""

from functools import partial

import pytest
from helpers.tiny_network import INSTALLED, PLAIN, copy_tensors, fake_accelerator, tiny_network, tiny_task, torch_test

from headstart.errors import BackboneError, OptionError
from headstart.finetune import FineTuneConfig

if INSTALLED:
    import torch

    from headstart.finetune.time_limit import Duration, estimate_duration, time_decoding, time_training
    from headstart.finetune.verdict import ALPHAS


@torch_test
def test_a_few_images_are_timed_on_a_processor():
    sizes = []

    def time_training(task, rows):
        sizes.append(len(rows))
        return 1.0

    task = tiny_task(tiny_network(), FineTuneConfig(**{**PLAIN, "batch_size": 8}))
    duration = estimate_duration(task, 3, 0.5, time_training, lambda *_: 0.0)
    assert sizes == [4, 4]  # the first to warm up
    assert duration.epoch == pytest.approx((1.0 / 4 * 3 + 0.5) * 12)  # 12 images, trained on three times
    assert duration.evaluation == pytest.approx(0.5 * 12 * (len(ALPHAS) + 3))


@torch_test
@pytest.mark.parametrize("kept", [12, 3])
def test_decoding_counts_once_and_that_of_images_that_memory_does_not_hold_each_time(kept, monkeypatch):
    image_bytes = tiny_task(tiny_network(), FineTuneConfig(**PLAIN)).images.load(0).nbytes
    monkeypatch.setattr("headstart.finetune.image_loader.memory_budget", lambda: kept * image_bytes)
    task = tiny_task(tiny_network(), FineTuneConfig(**{**PLAIN, "batch_size": 8}))
    duration = estimate_duration(task, 3, 0.5, lambda *_: 1.0, lambda _, rows: 0.2 * len(rows))
    again = 12 - kept
    assert duration.epoch == pytest.approx((1.0 / 4 * 3 + 0.5) * 12 + 0.2 * again * 4)
    assert duration.evaluation == pytest.approx((0.5 * 12 + 0.2 * again) * (len(ALPHAS) + 3) + 0.2 * kept)


@torch_test
def test_of_several_processes_each_decodes_its_part_to_train_and_all_images_once(monkeypatch):
    image_bytes = tiny_task(tiny_network(), FineTuneConfig(**PLAIN)).images.load(0).nbytes
    monkeypatch.setattr("headstart.finetune.image_loader.memory_budget", lambda: 3 * image_bytes)
    monkeypatch.setattr("headstart.finetune.time_limit.broadcast_object_list", lambda values: values)
    accelerator, timed = fake_accelerator(1, 2), []

    def time_decoding(task, rows):
        timed.append(rows.tolist())
        return 0.2 * len(rows)

    task = tiny_task(tiny_network(), FineTuneConfig(**{**PLAIN, "batch_size": 8}), accelerator)
    duration = estimate_duration(task, 3, 0.5, lambda *_: 1.0, time_decoding)
    assert timed == [[1, 3, 5, 7], [0, 2, 4, 6]]
    assert duration.epoch == pytest.approx(12 * (1.0 / 8 * 3 + 0.5) + 9 * (0.1 * 3 + 0.2))
    assert duration.evaluation == pytest.approx((0.5 * 12 + 0.2 * 9) * (len(ALPHAS) + 3) + 0.2 * 3)


@torch_test
def test_decoding_is_timed_by_itself():
    task, decoded = tiny_task(tiny_network(), FineTuneConfig(**PLAIN)), []
    read = task.images.dataset.read
    task.images.dataset.read = lambda index: decoded.append(index) or read(index)
    decoded_by_timings = []

    def time_and_count(time, task, rows):
        before = len(decoded)
        seconds = time(task, rows)
        decoded_by_timings.append(sorted(decoded[before:]))
        return seconds

    timings = (partial(time_and_count, time) for time in (time_training, time_decoding))
    assert estimate_duration(task, 3, 0.0, *timings).epoch > 0
    assert decoded_by_timings == [[0, 1, 2], [], [], []]  # the task has decoded the fourth image before


@torch_test
def test_timing_leaves_no_gradients_and_changes_nothing():
    network = tiny_network()
    task, before = tiny_task(network, FineTuneConfig(**PLAIN)), copy_tensors(network)
    assert estimate_duration(task, 3, 0.0).epoch > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.vectors = out_of_memory
    with pytest.raises(BackboneError, match="too small to train on one image"):
        estimate_duration(task, 3, 0.0)


def out_of_memory(pixels):
    raise torch.OutOfMemoryError("injected")


@torch_test
def test_a_time_limit_lowers_the_number_of_epochs():
    duration = Duration(epoch=2.0, evaluation=10.0)
    assert duration.total(5) == 20
    assert duration.limit_epochs(FineTuneConfig(epochs=5)) == 5
    assert duration.limit_epochs(FineTuneConfig(epochs=5, time_limit=15)) == 2
    assert duration.limit_epochs(FineTuneConfig(epochs=5, time_limit=1000)) == 5
    with pytest.raises(OptionError, match="about 12 s in all, more than the limit of 11 s"):
        duration.limit_epochs(FineTuneConfig(epochs=5, time_limit=11))
