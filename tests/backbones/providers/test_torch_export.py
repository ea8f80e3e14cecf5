"""Exports for a marked number of images, against those for a batch of open size. Needs PyTorch."""

import numpy as np
import onnxruntime
import pytest
from helpers.frameworks import needs

from headstart.backbones.providers import torch_export
from headstart.backbones.providers.torch_export import MARK, to_onnx

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "onnxscript")


def network(tail, channels=8):
    """A convolution, a batch norm, and ``tail``, a function of their maps [batch, channels, 4, 4]."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = torch.nn.Conv2d(3, channels, 3, 2, 1), torch.nn.BatchNorm2d(channels)
            self.norm.running_mean.normal_()

        def forward(self, x):
            return tail(self.norm(self.convolution(x)))

    torch.manual_seed(0)
    return Network().eval()


def values(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def tokens(x):
    """A token for each image behind those of its places, as transformers have it."""
    import torch

    return torch.cat([x.flatten(2), torch.ones(1, x.shape[1], 1).expand(x.shape[0], -1, -1)], 2)


TAILS = {
    "mean": (lambda x: x.mean((2, 3)), False),
    "flattened": (lambda x: x.flatten(1), False),
    "new shape": (lambda x: x.view(x.shape[0], 4, 32).relu(), False),
    "new shape, partly open": (lambda x: x.view(x.shape[0], 4, -1).relu(), True),
    "windows": (lambda x: x.reshape(x.shape[0] * 4, 4, 8).softmax(-1).reshape(x.shape[0], -1), True),
    "tokens": (tokens, True),
    "batch within a shape": (lambda x: x.permute(1, 0, 2, 3).reshape(8, x.shape[0], 16).permute(1, 0, 2).relu(), True),
}


@pytest.mark.parametrize("case", TAILS)
def test_any_number_of_images_gives_what_pytorch_gives(case):
    import torch

    tail, needs_open = TAILS[case]
    module = network(tail)
    images = torch.randn(3, 3, 8, 8)
    assert (torch_export._export_marked(module, (3, 8, 8)) is None) == needs_open
    models = to_onnx(module, (3, 8, 8))
    for count in (1, 3):
        with torch.no_grad():
            expected = module(images[:count]).numpy()
        for model in models:
            np.testing.assert_allclose(values(model, images[:count].numpy()), expected, atol=1e-5)
    simplified, unfolded = ([node.op_type for node in model.graph.node] for model in models)
    assert "BatchNormalization" in unfolded
    assert "BatchNormalization" not in simplified


def test_a_network_with_as_many_channels_as_marked_images_is_exported_for_an_open_batch():
    module = network(lambda x: x.mean((2, 3)), channels=MARK)
    assert torch_export._export_marked(module, (3, 8, 8)) is None
    model, _ = to_onnx(module, (3, 8, 8))
    assert values(model, np.zeros((5, 3, 8, 8), np.float32)).shape == (5, MARK)


def contents(model):
    """The nodes and the constants of a graph, with tensors numbered in the order in which they are first named."""
    numbers, constants = {}, {tensor.name: tensor for tensor in model.graph.initializer}

    def number(name):
        return numbers.setdefault(name, len(numbers)), constants[name].raw_data if name in constants else None

    return [
        (
            node.op_type,
            [number(name) for name in node.input],
            [number(name) for name in node.output],
            [attribute.SerializeToString() for attribute in node.attribute],
        )
        for node in model.graph.node
    ]


def test_the_graph_is_that_of_an_open_batch(monkeypatch):
    """Of a network of timm, but for the numbers in names."""
    timm = pytest.importorskip("timm")
    module = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    marked, _ = to_onnx(module, (3, 64, 64))
    monkeypatch.setattr(torch_export, "_export_marked", lambda *_: None)
    expected, _ = to_onnx(module, (3, 64, 64))
    for model in (marked, expected):
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert contents(marked) == contents(expected)
    assert len(contents(expected)) > 100
