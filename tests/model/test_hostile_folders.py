"""Hostile and damaged model folders are refused with one line, and nothing in them is executed."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

import headstart as hs
from headstart.errors import HeadstartError, ModelError


@pytest.fixture
def model(model_folder, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def edit(model: Path, change) -> None:
    config = json.loads((model / "config.json").read_text("utf-8"))
    change(config)
    (model / "config.json").write_text(json.dumps(config), "utf-8")


def replace_config(text):
    return lambda model: (model / "config.json").write_bytes(text)


def truncate(name, share=0.5):
    def damage(model):
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[: int(len(data) * share)])

    return damage


def change_config(change):
    return lambda model: edit(model, change)


def replace_tensors(**tensors):
    def damage(model):
        from safetensors.numpy import save

        (model / "head.safetensors").write_bytes(save(tensors))

    return damage


def with_ood_tensors(**changes):
    valid = {"centre": np.zeros(4, "f4"), "scales": np.ones(4, "f4"), "factor": np.zeros((4, 2), "f2")}
    ood = {f"ood.{name}": array for name, array in (valid | changes).items()}
    return replace_tensors(weights=np.zeros((4, 2), "f4"), bias=np.zeros(2, "f4"), **ood)


def change_golden(**changes):
    def damage(model):
        with np.load(model / "golden.npz") as arrays:
            values = {**arrays, **changes}
        np.savez(model / "golden.npz", **{name: array for name, array in values.items() if array is not None})

    return damage


class RunsOnUnpickling:
    def __reduce__(self):
        return (os.mkdir, ("pickle-was-run",))


def pickled_golden(model):
    np.savez(model / "golden.npz", pixels=np.array([RunsOnUnpickling()], object), probabilities=np.zeros((1, 2)))


def pickled(name):
    return lambda model: (model / name).write_bytes(pickle.dumps(RunsOnUnpickling()))


def move_out_and_link(name):
    def damage(model):
        outside = model.parent / f"outside-{name}"
        shutil.move(model / name, outside)
        (model / name).symlink_to(outside)

    return damage


def huge_header(model):
    (model / "head.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")


def external_weights(model):
    graph = onnx.load(model / "model.onnx")
    tensor = graph.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../../../etc/passwd"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    write_graph(model, graph.SerializeToString())


def external_weights_in_long_form(model):
    """The same, but the length of the key is written in two bytes where one would do."""
    external_weights(model)
    graph = onnx.load_model_from_string((model / "model.onnx").read_bytes())
    tensor = graph.graph.initializer.pop(0)
    tensor.ClearField("external_data")
    path = b"../../../etc/passwd"
    entry = b"\x0a\x88\x00location" + field(2, path)
    tensor_bytes = tensor.SerializeToString() + field(13, entry)
    graph_bytes = graph.graph.SerializeToString() + field(5, tensor_bytes)
    graph.ClearField("graph")
    data = graph.SerializeToString() + field(7, graph_bytes)
    assert b"\x0a\x08location" not in data
    assert onnx.load_model_from_string(data).graph.initializer[-1].external_data[0].value == path.decode()
    write_graph(model, data)


def external_weights_of_a_function(model):
    graph = onnx.load(model / "model.onnx")
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1.0])
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    node = onnx.helper.make_node("Constant", [], ["y"], value=tensor)
    graph.functions.append(
        onnx.helper.make_function("local", "f", [], ["y"], [node], [onnx.helper.make_opsetid("", 17)])
    )
    write_graph(model, graph.SerializeToString())


def other_graph(change):
    def damage(model):
        graph = onnx.load(model / "model.onnx")
        change(graph.graph)
        write_graph(model, graph.SerializeToString())

    return damage


def loop(graph):
    body = onnx.helper.make_graph([], "body", [], [])
    graph.node.append(onnx.helper.make_node("Loop", ["", ""], [], body=body))


def doubling(graph):
    names = ["pixels", *(f"doubled.{i}" for i in range(16))]
    graph.node.extend(onnx.helper.make_node("Concat", [a, a], [b], axis=3) for a, b in pairwise(names))


def another_input(graph):
    graph.input[0].name = "images\n"
    for node in graph.node:
        node.input[:] = ["images\n" if name == "pixels" else name for name in node.input]


def short_weights(graph):
    tensor = next(tensor for tensor in graph.initializer if len(tensor.raw_data) > 100)
    tensor.raw_data = tensor.raw_data[:100]


def compressed_golden(model):
    with np.load(model / "golden.npz") as arrays:
        values = {**arrays}
    np.savez_compressed(model / "golden.npz", **values)


def brackets_in_golden(model):
    header = b"(" * 117 + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(model / "golden.npz", "w") as archive:
        for name in ("decoded", "pixels", "probabilities"):
            archive.writestr(f"{name}.npy", array)


def text_in_golden(model):
    with np.load(model / "golden.npz") as arrays:
        values = {name: array for name, array in arrays.items() if name != "pixels"}
    np.savez(model / "golden.npz", **values)
    with zipfile.ZipFile(model / "golden.npz", "a") as archive:
        archive.writestr("pixels", b"no array")


def field(number, content):
    """A field of a protobuf message: its number and kind, its length, its bytes."""
    length, varint = len(content), b""
    while length >= 128:
        varint, length = varint + bytes([length % 128 + 128]), length // 128
    return bytes([number << 3 | 2]) + varint + bytes([length]) + content


def write_graph(model, data):
    (model / "model.onnx").write_bytes(data)
    edit(model, lambda c: c["sha256"].update({"model.onnx": hashlib.sha256(data).hexdigest()}))


HOSTILE = {
    "config of nothing": replace_config(b""),
    "config truncated": truncate("config.json"),
    "config not an object": replace_config(b"[1, 2]"),
    "config deep": replace_config(b"[" * 100_000),
    "config not text": replace_config(b"\xff\xfe\x00"),
    "config pickle": pickled("config.json"),
    "no format": change_config(lambda c: c.pop("format")),
    "newer format": change_config(lambda c: c.update(format=99)),
    "format true": change_config(lambda c: c.update(format=True)),
    "format text": change_config(lambda c: c.update(format="1")),
    "no classes": change_config(lambda c: c.update(id2label={})),
    "one class": change_config(lambda c: c.update(id2label={"0": "a"})),
    "classes of other count": change_config(lambda c: c.update(id2label={"0": "a", "1": "b", "2": "c"})),
    "same class twice": change_config(lambda c: c.update(id2label={"0": "a", "1": "a"})),
    "class that is not text": change_config(lambda c: c.update(id2label={"0": "a", "1": 2})),
    "classes a list": change_config(lambda c: c.update(id2label=["a", "b"])),
    "labels not the inverse of classes": change_config(lambda c: c["label2id"].update(disc=1)),
    "no labels by class": change_config(lambda c: c.pop("label2id")),
    "golden deleted alone": lambda model: (model / "golden.npz").unlink(),
    "gap in numbers": change_config(lambda c: c.update(id2label={"0": "a", "2": "b"})),
    "size of zero": change_config(lambda c: c["preprocess"].update(height=0)),
    "enormous size": change_config(lambda c: c["preprocess"].update(height=10**9)),
    "unknown preprocessing": change_config(lambda c: c["preprocess"].update(shell="rm")),
    "no preprocessing": change_config(lambda c: c.pop("preprocess")),
    "temperature zero": change_config(lambda c: c.update(temperature=0)),
    "temperature text": change_config(lambda c: c.update(temperature="hot")),
    "temperature nan": change_config(lambda c: c.update(temperature=float("nan"))),
    "no coverage": change_config(lambda c: c.pop("coverage")),
    "coverage of all": change_config(lambda c: c.update(coverage=1)),
    "coverage text": change_config(lambda c: c.update(coverage="most")),
    "no false alarms": change_config(lambda c: c.pop("false_alarms")),
    "false alarms true": change_config(lambda c: c.update(false_alarms=True)),
    "no set thresholds": change_config(lambda c: c.pop("set_thresholds")),
    "set thresholds of another count": change_config(lambda c: c.update(set_thresholds=[0.5])),
    "set threshold above 1": change_config(lambda c: c.update(set_thresholds=[0.5, 1.5])),
    "set threshold nan": change_config(lambda c: c.update(set_thresholds=[0.5, float("nan")])),
    "set thresholds an object": change_config(lambda c: c.update(set_thresholds={"0": 0.5, "1": 0.5})),
    "no reject threshold": change_config(lambda c: c.pop("reject_threshold")),
    "reject threshold negative": change_config(lambda c: c.update(reject_threshold=-1)),
    "reject threshold infinite": change_config(lambda c: c.update(reject_threshold=float("inf"))),
    "reject threshold text": change_config(lambda c: c.update(reject_threshold="0.5")),
    "reject threshold enormous": change_config(lambda c: c.update(reject_threshold=10**400)),
    "no OOD detector": replace_tensors(weights=np.zeros((4, 2), "f4"), bias=np.zeros(2, "f4")),
    "OOD detector of another width": with_ood_tensors(centre=np.zeros(3, "f4")),
    "OOD factor of one dimension": with_ood_tensors(factor=np.zeros(4, "f2")),
    "OOD factor of doubles": with_ood_tensors(factor=np.zeros((4, 2))),
    "OOD scales not finite": with_ood_tensors(scales=np.full(4, np.nan, "f4")),
    "golden without distance tolerance": change_config(lambda c: c["golden"].pop("distance_tolerance")),
    "golden without OOD scores": change_golden(distances=None),
    "golden of too many OOD scores": change_golden(distances=np.zeros(9, "f4")),
    "batch negative": change_config(lambda c: c.update(batch=-4)),
    "no head": change_config(lambda c: c.pop("head")),
    "no hash": change_config(lambda c: c.pop("sha256")),
    "graph truncated": truncate("model.onnx"),
    "graph pickle": pickled("model.onnx"),
    "graph linked out of the folder": move_out_and_link("model.onnx"),
    "graph refers out": external_weights,
    "graph refers out in long form": external_weights_in_long_form,
    "function of the graph refers out": external_weights_of_a_function,
    "head truncated": truncate("head.safetensors", 0.9),
    "head empty": truncate("head.safetensors", 0),
    "head pickle": pickled("head.safetensors"),
    "head header huge": huge_header,
    "head linked out of the folder": move_out_and_link("head.safetensors"),
    "head wrong shape": replace_tensors(weights=np.zeros((4, 3), "f4"), bias=np.zeros(3, "f4")),
    "head flat": replace_tensors(weights=np.zeros(4, "f4"), bias=np.zeros(2, "f4")),
    "head without bias": replace_tensors(weights=np.zeros((4, 2), "f4")),
    "head of doubles": replace_tensors(weights=np.zeros((4, 2)), bias=np.zeros(2)),
    "head with half a hidden layer": replace_tensors(
        weights=np.zeros((4, 2), "f4"), bias=np.zeros(2, "f4"), **{"hidden.weights": np.zeros((3, 4), "f4")}
    ),
    "golden truncated": truncate("golden.npz"),
    "golden pickle inside": pickled_golden,
    "golden pickle": pickled("golden.npz"),
    "golden linked out of the folder": move_out_and_link("golden.npz"),
    "golden of other size": change_config(lambda c: c["preprocess"].update(height=128)),
    "golden compressed": compressed_golden,
    "golden of brackets": brackets_in_golden,
    "golden of a member that is no array": text_in_golden,
    "golden of texts": change_golden(probabilities=np.array([["a", "b"]] * 8)),
    "temperature of 400 digits": change_config(lambda c: c.update(temperature=10**400)),
    "graph with a loop": other_graph(loop),
    "graph of 4 GB": other_graph(doubling),
    "graph of other inputs": other_graph(lambda graph: graph.node[0].input.__setitem__(0, "somewhere")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_folders_are_refused_in_one_line(name, model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    HOSTILE[name](model)
    with pytest.raises(ModelError) as error_info:
        hs.load(model)
    assert "\n" not in str(error_info.value)
    assert len(str(error_info.value)) > 20
    assert not (tmp_path / "pickle-was-run").exists()


def test_an_input_of_another_name_is_named(model):
    other_graph(another_input)(model)
    with pytest.raises(ModelError, match=r"model\.onnx has the inputs 'images\\n', not 'pixels'; refused\.$"):
        hs.load(model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["preprocess"].update(height=2048, width=2048), "GiB of memory at a time, more than the limit"),
        (lambda c: c.update(batch=4096), "GiB of memory at a time, more than the limit"),
    ],
)
def test_a_graph_that_passed_is_checked_again_for_other_images(model, change, said):
    hs.load(model)
    edit(model, change)
    with pytest.raises(ModelError, match=said):
        hs.load(model)


def test_a_damaged_run_does_not_keep_a_model_from_predicting(model, photos):
    expected = hs.load(model).predict_proba([str(photos / "train" / "disc" / "000.jpg")])
    truncate("run.json")(model)
    np.testing.assert_array_equal(hs.load(model).predict_proba([str(photos / "train" / "disc" / "000.jpg")]), expected)


def twice_as_wide(graph):
    softmax = next(node for node in graph.node if node.output[0] == "probabilities")
    softmax.output[0] = "inner"
    graph.node.append(onnx.helper.make_node("Concat", ["inner", "inner"], ["probabilities"], axis=1))
    del graph.output[0].type.tensor_type.shape.dim[:]


@pytest.mark.parametrize("change", [twice_as_wide, short_weights])
def test_a_graph_that_fails_only_when_it_is_run_is_an_error(change, model, photos):
    other_graph(change)(model)
    loaded = hs.load(model)
    for ask in (lambda: loaded.predict([str(photos / "train" / "disc" / "000.jpg")]), loaded.verify):
        with pytest.raises(HeadstartError, match=r"values of probabilities|cannot run the graph"):
            ask()


def test_a_graph_is_checked_once_on_a_machine(model, monkeypatch):
    hs.load(model)
    calls = []
    monkeypatch.setattr("headstart.backbones.onnx.limits.check_size", lambda *arguments: calls.append(arguments))
    hs.load(model)
    assert calls == []  # remembered
    other_graph(lambda graph: setattr(graph, "name", "other"))(model)
    hs.load(model)
    hs.load(model)
    assert len(calls) == 1
    monkeypatch.setenv("HEADSTART_CACHE", "/dev/null/nowhere")
    hs.load(model)
    hs.load(model)
    assert len(calls) == 3


def test_the_tensors_of_the_damaged_folders_are_valid_without_the_damage(model):
    """Each folder above is refused for its damage, not for the other tensors that were replaced."""
    with_ood_tensors()(model)
    change_golden()(model)
    assert hs.load(model).model_.ood.factor.shape == (4, 2)
