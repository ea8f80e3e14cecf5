"""Weights written into the frozen graph, against a new export of the network. Needs PyTorch."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers.finetuning import fit_timm, network_of
from helpers.frameworks import marked

torch_test = marked("torch", "timm", "accelerate", "onnxscript")


@pytest.fixture(scope="module")
def timm_fit(photos, tmp_path_factory):
    """A fit on a network of timm."""
    return fit_timm(photos, tmp_path_factory.mktemp("weights"))


@pytest.fixture
def trained(timm_fit):
    """The network of the fit, with other weights and statistics in its last stage, and its tensors before."""
    import torch

    network = network_of(timm_fit)
    assert network.fold(timm_fit.model.golden.pixels[:2]) > 8
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "layer4" in name and value.is_floating_point():
                value.mul_(1 + 0.1 * torch.rand_like(value))
            elif "layer4" in name:
                value.add_(7)
    return network, initial


def constants(graph):
    model = onnx.load_model_from_string(graph if isinstance(graph, bytes) else graph.read_bytes())
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@torch_test
def test_the_graph_is_that_of_a_new_export_bit_for_bit(timm_fit, trained, monkeypatch):
    network, initial = trained
    golden = timm_fit.model.golden
    written = network.export(initial, golden.pixels)
    monkeypatch.setattr("headstart.finetune.network.write_weights", lambda *_: None)
    exported = network.export(initial, golden.pixels)
    assert replace(written, graph=b"", sha256="") == replace(exported, graph=b"", sha256="")
    before, after, expected = (constants(b.graph) for b in (timm_fit.data.backbone, written, exported))
    assert after.keys() == expected.keys() == before.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    changed = {name for name, value in before.items() if not np.array_equal(value, after[name])}
    assert changed == {name for name in before if "layer4" in name}
    assert any(name.endswith("bias") for name in changed)


@torch_test
def test_what_is_not_the_network_stays_that_of_the_frozen_backbone(timm_fit, trained, monkeypatch):
    network, initial = trained
    frozen = network.backbone
    network.backbone = replace(frozen, preprocess=replace(frozen.preprocess, decode="full"), notes=("a note",))
    for write in (True, False):
        if not write:
            monkeypatch.setattr("headstart.finetune.network.write_weights", lambda *_: None)
        exported = network.export(initial, timm_fit.model.golden.pixels)
        assert exported.preprocess.decode == "full"
        assert exported.notes == ("a note",)
        assert exported.licence == frozen.licence
        assert exported.source == f"{frozen.source}, fine-tuned with Headstart"
        assert exported.sha256 != frozen.sha256


@torch_test
@pytest.mark.parametrize("case", ["other weights", "shared", "missing", "unpaired"])
def test_a_graph_that_does_not_follow_from_the_weights_is_not_written(timm_fit, trained, case):
    from headstart.finetune.graph_weights import write_weights

    network, initial = trained
    model = onnx.load_model_from_string(timm_fit.data.backbone.graph.read_bytes())
    tensors = {tensor.name: tensor for tensor in model.graph.initializer if "layer4" in tensor.name}
    name, norms = next(name for name in tensors if name.endswith("conv1.weight")), network.norms
    if case == "other weights":
        value = onnx.numpy_helper.to_array(tensors[name])
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(value * np.float32(1.001), name))
    elif case == "shared":
        node = next(node for node in model.graph.node if name in node.input)
        model.graph.node.append(onnx.helper.make_node("Identity", [node.input[1]], ["another"]))
    elif case == "missing":
        tensors[name].name = "another"
    else:
        norms = {}
    start = {name.removeprefix("body."): value for name, value in initial.items() if name.startswith("body.")}
    assert write_weights(model.SerializeToString(), network.body, norms, start) is None
    assert write_weights(timm_fit.data.backbone.graph.read_bytes(), network.body, network.norms, start) is not None


@torch_test
def test_a_written_graph_that_gives_other_vectors_is_exported_anew(timm_fit, trained, monkeypatch):
    from headstart.finetune import network as module

    network, initial = trained
    pixels = timm_fit.model.golden.pixels
    expected = network.export(initial, pixels)
    write = module.write_weights

    def write_wrong(graph, *arguments):
        model = onnx.load_model_from_string(write(graph, *arguments))
        tensor = next(t for t in model.graph.initializer if "layer4" in t.name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 2, tensor.name))
        return model.SerializeToString()

    monkeypatch.setattr(module, "write_weights", write_wrong)
    exported = network.export(initial, pixels)
    for name, value in constants(expected.graph).items():
        np.testing.assert_array_equal(constants(exported.graph)[name], value)
