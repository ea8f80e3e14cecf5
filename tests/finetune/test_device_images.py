"""What an accelerator does with batches, here on the processor: against Pillow and NumPy. Needs PyTorch."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.mixing import mixed
from helpers.tiny_network import (
    COUNT,
    INSTALLED,
    LABELS,
    PIXELS,
    PLAIN,
    tiny_network,
    tiny_task,
    torch_test,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.finetune import FineTuneConfig
from headstart.finetune.image_loader import Views
from headstart.finetune.mixing import Mix

if INSTALLED:
    import torch

    from headstart.finetune import loop
    from headstart.finetune.device_images import mix_batch, warp_batch
    from headstart.finetune.gradients import LocalBatch, Loss, Recorder, Recording, compute_gradients
    from headstart.finetune.precision import MixedPrecision

SEVERAL_LABELS = np.array([[1, 0], [0, 0], [np.nan, 1], [1, np.nan]] * 3, np.float32)


def smooth_images(count, height, width):
    noise = np.random.default_rng(0).integers(0, 256, (count, 6, 7, 3)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height), 2)) for image in noise])


@torch_test
@settings(deadline=None)
@given(st.sampled_from(["flip", "light", "lesson"]), st.integers(0, 1000), st.integers(9, 40), st.integers(9, 40))
def test_views_on_a_device_are_those_of_pillow(augmentation, seed, height, width):
    pixels = smooth_images(5, height, width)
    views = Views.draw(augmentation, 9, (height, width), seed, 1)
    rows = np.array([8, 2, 3, 0, 5])
    expected = np.stack([views.apply(image, row) for image, row in zip(pixels, rows, strict=True)]).astype(int)
    difference = np.abs(warp_batch(torch.from_numpy(pixels), views, rows).numpy() - expected)
    assert difference.max() <= 1  # of 256 levels, where a value is whole but for rounding
    assert (difference > 0).mean() < 0.02
    assert augmentation != "flip" or difference.max() == 0


@torch_test
@pytest.mark.parametrize("box", [None, (1, 2, 5, 7)])
def test_mixing_on_a_device_is_that_of_numpy(box):
    images, partners = PIXELS[:4], PIXELS[4:8]
    mix = Mix(np.arange(4), 0.3, box)
    on_device = mix_batch(mix, torch.from_numpy(images), torch.from_numpy(partners)).numpy()
    assert np.abs(on_device.astype(int) - mixed(mix, images, partners)).max() <= (1 if box is None else 0)


@torch_test
def test_an_evaluation_does_not_depend_on_the_size_of_its_batches():
    task = tiny_task(tiny_network(), FineTuneConfig(**PLAIN))
    rows = np.arange(COUNT)
    one_by_one, together = (loop._predict(task, rows, size) for size in (1, COUNT))
    for values, expected in zip(one_by_one, together, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


@torch_test
def test_an_evaluation_that_needs_too_much_memory_is_made_in_parts():
    task, rows = tiny_task(tiny_network(), FineTuneConfig(**PLAIN)), np.arange(COUNT)
    expected, sizes, compute = loop.predict(task, rows), [], task.network.vectors

    def vectors(pixels):
        sizes.append(len(pixels))
        if len(pixels) > 5:
            raise torch.OutOfMemoryError("injected")
        return compute(pixels)

    task.network.vectors = vectors
    np.testing.assert_allclose(loop.predict(task, rows)[0], expected[0], rtol=1e-5, atol=1e-5)
    assert sizes == [12, 12, 8, 4, 4, 4]


class FakeGraph:
    """In place of a CUDA graph: runs what would have been recorded."""

    def __init__(self, run):
        self.replay = run


@torch_test
@pytest.mark.parametrize("mixing", [{}, {"mixup": 1.0}])
@pytest.mark.parametrize("labels", [LABELS, SEVERAL_LABELS], ids=["classes", "labels"])
def test_a_recording_for_full_batches_gives_the_gradients_of_any_batch(mixing, labels):
    """The tensors that a CUDA graph reads and writes, without CUDA."""
    network = tiny_network()
    config = FineTuneConfig(unfreeze_from="all", **mixing, **{**PLAIN, "batch_size": 5})
    task = tiny_task(network, config, labels=labels)
    precision = MixedPrecision.of("fp32", "cpu")
    recorded, given_loss = (Loss(precision, torch.tensor(weights), 0.1) for weights in ([1.0, 1.0], [0.5, 2.0]))
    parameters = tuple(network.parameters())
    batches = list(loop.local_batches(task, [np.arange(5), np.array([7, 3])], 1))
    full, partial = batches
    partners = None if full.partner_labels is None else torch.zeros_like(full.labels)
    inputs = LocalBatch(torch.zeros_like(full.pixels), torch.zeros_like(full.labels), partners, torch.ones(()), 5)
    gradients = tuple(torch.zeros_like(parameter) for parameter in parameters)
    recording = Recording(None, parameters, inputs, torch.ones(5), recorded.class_weights, gradients, *torch.zeros(2))

    def run():
        from headstart.finetune.gradients import _pass

        network.zero_grad()
        loss, correct = _pass(network, inputs, recording.is_image, recorded, precision.autocast(cache=False))
        recording.loss.copy_(loss)
        recording.correct.copy_(correct)
        for gradient, parameter in zip(gradients, parameters, strict=True):
            gradient.copy_(parameter.grad)

    recording.graph = FakeGraph(run)
    for batch in (full, partial, full):
        expected = [float(value) for value in compute_gradients(network, batch, given_loss, None)]
        expected_gradients = [parameter.grad.clone() for parameter in parameters]
        totals = [float(value) for value in recording.replay(batch, given_loss.class_weights)]
        assert totals == pytest.approx(expected, rel=1e-5)
        for parameter, gradient in zip(parameters, expected_gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@torch_test
def test_nothing_is_recorded_where_it_cannot_be():
    network, parameters = tiny_network(), ()
    [batch] = loop.local_batches(tiny_task(network, FineTuneConfig(**PLAIN)), [np.arange(4)], 1)
    loss = Loss(MixedPrecision.of("fp32", "cpu"), torch.ones(2), 0.0)
    pretended = replace(batch, pixels=SimpleNamespace(device=torch.device("cuda")))
    frozen, keras = FineTuneConfig(**PLAIN), tiny_network()
    keras.provider = "keras"
    for config, body, device in (
        (frozen, network, "cpu"),
        (frozen, network, "mps"),
        (replace(frozen, batch_norm="update"), network, "cuda"),  # statistics would move
        (replace(frozen, precision="fp16"), network, "cuda"),
        (frozen, keras, "cuda"),
    ):
        recorder = Recorder.of(config, body, torch.device(device))
        assert recorder.recording_for(body, pretended, loss, parameters, (4, 4)) is None
        assert not recorder.is_possible
    assert Recorder().recording_for(network, pretended, loss, parameters, (4, 4)) is None
    for precision in ("fp32", "bf16"):
        assert Recorder.of(replace(frozen, precision=precision), network, torch.device("cuda")).is_possible
