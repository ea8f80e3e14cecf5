"""Backbone and head as a trainable network. Needs PyTorch."""

import numpy as np
import pytest
from helpers.finetuning import fit_timm, network_of
from helpers.frameworks import marked

from headstart import backbones
from headstart.errors import BackboneError
from headstart.heads.head import Head

torch_test = marked("torch", "timm", "accelerate", "onnxscript")


@torch_test
def test_the_built_in_graph_in_pytorch_equals_onnxruntime_at_every_tap(builtin_fit):
    import onnxruntime
    import torch

    network = network_of(builtin_fit)
    pixels = builtin_fit.model.golden.pixels
    session = onnxruntime.InferenceSession(builtin_fit.data.backbone.graph, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"pixels": pixels})
    with torch.no_grad():
        actual = network.body(torch.from_numpy(pixels))
    for value, expected_value in zip(actual, expected, strict=True):
        assert np.linalg.norm(value.numpy() - expected_value) < 1e-4 * np.linalg.norm(expected_value)
    exported = network.export(network.state_dict(), pixels)
    session = onnxruntime.InferenceSession(exported.graph, providers=["CPUExecutionProvider"])
    for value, expected_value in zip(session.run(None, {"pixels": pixels}), expected, strict=True):
        np.testing.assert_allclose(value, expected_value, atol=1e-5 * np.abs(expected_value).max())


@torch_test
def test_the_graph_of_headstart_m_in_pytorch_equals_onnxruntime_at_every_tap():
    """Unlike that of headstart-s it is bounded by ReLU6."""
    import onnx
    import onnxruntime
    import torch

    from headstart.finetune.graph_module import GraphModule

    backbone = backbones.load("headstart-m")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    module = GraphModule(onnx.load(backbone.graph))
    expected = onnxruntime.InferenceSession(backbone.graph).run(None, {"pixels": pixels})
    exported = onnxruntime.InferenceSession(module.export()).run(None, {"pixels": pixels})
    with torch.no_grad():
        actual = module(torch.from_numpy(pixels))
    for value, from_export, expected_value in zip(actual, exported, expected, strict=True):
        assert np.linalg.norm(value.numpy() - expected_value) < 1e-4 * np.linalg.norm(expected_value)
        np.testing.assert_allclose(from_export, expected_value, atol=1e-5 * np.abs(expected_value).max())


@torch_test
def test_channels_lie_first_where_compiling_depthwise_kernels_would_not_pay(builtin_fit, photos, tmp_path):
    import timm
    import torch

    first, last = torch.contiguous_format, torch.channels_last
    cases = ("cuda", 39_999, first), ("cuda", 40_000, last), ("cpu", 100, last), ("mps", 100, last)
    for result in (builtin_fit, fit_timm(photos, tmp_path)):
        network = network_of(result)
        if result is builtin_fit:
            for device, images, expected in cases:
                assert network.fastest_format(device, images) == expected
        pixels = torch.from_numpy(result.model.golden.pixels)
        convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
        vectors = []
        for memory_format in (last, first):
            network.memory_format = memory_format
            network.to(memory_format=memory_format)
            found = []
            hooks = [m.register_forward_hook(lambda _, __, y, f=found: f.append(y)) for m in convolutions]
            with torch.no_grad():
                vectors.append(network.vectors(pixels))
            assert all(y.is_contiguous(memory_format=memory_format) for y in found)
            assert len(found) == len(convolutions)
            for hook in hooks:
                hook.remove()
        torch.testing.assert_close(*vectors, rtol=1e-4, atol=1e-4)
    for name in ("convnext_atto", "resnet18"):  # depthwise kernels of 7 x 7 between layer norms, and none
        network.body = timm.create_model(name)
        assert network.fastest_format("cuda", 100) == last


@torch_test
def test_training_starts_as_the_frozen_model(builtin_fit, photos, tmp_path):
    for result in (builtin_fit, fit_timm(photos, tmp_path)):
        golden = result.model.golden
        assert network_of(result).check_start(golden.pixels, golden.probabilities) < 1e-4
        with pytest.raises(BackboneError, match="differs from the frozen model"):
            network_of(result).check_start(golden.pixels, golden.probabilities[::-1])


@torch_test
def test_a_head_is_replaced_by_one_of_another_shape_and_interpolated(builtin_fit):
    import torch

    from headstart.finetune.freeze import changing_tensors, make_plan
    from headstart.finetune.options import FineTuneConfig

    network, head = network_of(builtin_fit), builtin_fit.selected.head
    plan = make_plan(network, FineTuneConfig())
    rng = np.random.default_rng(0)
    width, classes = head.weights.shape
    hidden_layer = (rng.normal(size=(width, 3)).astype(np.float32), np.ones(3, np.float32))
    weights = rng.normal(size=(3, classes)).astype(np.float32)
    hidden = Head("ridge", head.taps, weights, head.bias, 2.0, hidden_layer)
    network.set_head(hidden)
    hidden_plan = plan.with_head_of(network)
    network.load_state_dict(hidden_plan.initial)
    assert {name for name in hidden_plan.lr_scales if name.startswith("head.")} == {
        "head.hidden_weights",
        "head.hidden_bias",
        "head.weights",
        "head.bias",
    }
    vectors = rng.normal(size=(5, width)).astype(np.float32)
    scores = network.scores(torch.from_numpy(vectors)).detach().numpy()
    np.testing.assert_allclose(scores, hidden.scores(vectors) / 2, rtol=1e-4)
    start = {name: value.clone() for name, value in changing_tensors(network, hidden_plan).items()}
    end = {name: value + 1 for name, value in start.items()}
    network.set_head(head)
    network.load_state_dict(plan.with_head_of(network).initial)
    network.load_interpolated(start, end, 0.25)
    for name, value in network.state_dict().items():
        expected = start[name] + 0.25 if name in start else plan.initial[name]
        torch.testing.assert_close(value, expected)
    again = network.get_head(hidden, 1.0)
    np.testing.assert_allclose(again.hidden_layer[1], 1.25)
    initial = {name: plan.initial[name] for name in plan.lr_scales}
    network.load_interpolated(initial, initial, 1.0)
    assert network.get_head(head, 1.0).hidden_layer is None
