"""Any ONNX classifier in standard form: the same numbers as the graph itself, and hostile ones refused."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.graphs import SIZE, inner, network, saved
from onnx import TensorProto, helper, numpy_helper

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.backbones.providers.framework import parse
from headstart.backbones.providers.onnx_file import _outside
from headstart.errors import BackboneError, MissingExtraError, OptionError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)


def outputs(backbone, pixels=PIXELS):
    session = onnxruntime.InferenceSession(backbone.graph, providers=["CPUExecutionProvider"])
    step = backbone.batch or len(pixels)
    found = [session.run(None, {"pixels": pixels[i : i + step]}) for i in range(0, len(pixels), step)]
    names = [o.name for o in session.get_outputs()]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*found, strict=True), strict=True)}


def normalised(pixels, mean=0.5, std=0.5, last=False, bgr=False):
    x = ((pixels / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
    x = x[..., ::-1] if bgr else x
    return np.ascontiguousarray(x if last else x.transpose(0, 3, 1, 2))


KINDS = [
    *({"opset": opset} for opset in (11, 13, 17, 18, 20, 22)), {"last": True}, {"batch": 1}, {"batch": 4},
    {"batch": 4, "head": "Reshape"}, {"batch": 1, "head": "Reshape"}, {"head": "Conv"}, {"softmax": False},
    {"head": "Conv", "softmax": False, "last": True}, {"size": "s"},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_taps_are_found_and_hold_the_graphs_own_numbers(tmp_path, kind):
    model, path = network(**kind), saved(tmp_path, **kind)
    options = InputOptions(size=(SIZE, SIZE)) if kind.get("size") else None
    backbone = backbones.load(f"onnx:{path}", options=options)
    names = [tap.name for tap in backbone.taps]
    assert names[-1] == "features"
    assert backbone.taps[-1].channels == 12
    assert backbone.taps[-1].size == (8, 8)
    assert "early" in names
    assert [tap.depth for tap in backbone.taps] == sorted(tap.depth for tap in backbone.taps)
    found = outputs(backbone)
    image = normalised(PIXELS, last=kind.get("last", False))
    early, late = inner(model, "early", image), inner(model, "late", image)
    np.testing.assert_allclose(found["early"], early.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["features"], late.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)


def test_fixed_batches_are_freed_or_respected(tmp_path):
    freed = backbones.load(f"onnx:{saved(tmp_path, 'a.onnx', batch=4)}")
    assert freed.batch is None
    np.testing.assert_allclose(outputs(freed, PIXELS[:3])["features"], outputs(freed)["features"][:3], rtol=1e-5)


def test_half_precision_input(tmp_path):
    model, path = network(dtype=TensorProto.FLOAT16), saved(tmp_path, dtype=TensorProto.FLOAT16)
    found = outputs(backbones.load(f"onnx:{path}"))["features"]
    expected = inner(model, "late", normalised(PIXELS).astype(np.float16)).astype(np.float32).mean(axis=(2, 3))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("bgr", [False, True])
def test_normalisation_comes_from_options(tmp_path, bgr):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    path = saved(tmp_path)
    options = InputOptions(mean=mean, std=std, channels="BGR" if bgr else None)
    backbone = backbones.load(f"onnx:{path}", options=options)
    assert backbone.notes == ()
    expected = inner(network(), "late", normalised(PIXELS, mean, std, bgr=bgr)).mean(axis=(2, 3))
    np.testing.assert_allclose(outputs(backbone)["features"], expected, rtol=1e-4, atol=1e-5)


def test_what_was_assumed_is_said(tmp_path):
    notes = backbones.load(f"onnx:{saved(tmp_path, size='s')}").notes
    assert any("assumed -1 to 1" in note and "--mean" in note for note in notes)
    assert any("224 x 224" in note for note in notes)
    assert len(backbones.load(f"onnx:{saved(tmp_path, 'b.onnx')}").notes) == 1


DESCRIPTIONS = [
    ({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}, (0.1, 0.2, 0.3), (1, 2, 3), {}),
    ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}, (0.5,) * 3, (0.5,) * 3, {}),
    ({"do_normalize": False}, (0,) * 3, (1,) * 3, {}),
    ({"do_rescale": False, "do_normalize": False}, (0,) * 3, (1 / 255,) * 3, {}),
    ({"image_mean": [0] * 3, "image_std": [1] * 3, "rescale_factor": 1 / 127.5}, (0,) * 3, (0.5,) * 3, {}),
    (
        {"mean": 0.5, "std": 0.25, "crop": 0.9, "resize": "squash"},
        (0.5,) * 3, (0.25,) * 3, {"crop": 0.9, "resize": "squash"},
    ),
    (
        {"image_mean": [0] * 3, "image_std": [1] * 3, "size": {"shortest_edge": 40},
         "crop_size": {"height": 32, "width": 32}, "resample": 3},
        (0,) * 3, (1,) * 3, {"crop": 0.8, "interpolation": "bicubic"},
    ),
    (
        {"image_mean": [0] * 3, "image_std": [1] * 3, "size": {"height": 32, "width": 32}},
        (0,) * 3, (1,) * 3, {"crop": 1.0, "resize": "squash"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "mean", "std", "preprocess"), DESCRIPTIONS, ids=range(len(DESCRIPTIONS)))
def test_a_description_beside_the_graph_is_used(tmp_path, values, mean, std, preprocess):
    path = saved(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    backbone = backbones.load(f"onnx:{path}")
    expected = inner(network(), "late", normalised(PIXELS, mean, std)).mean(axis=(2, 3))
    np.testing.assert_allclose(outputs(backbone)["features"], expected, rtol=1e-3, atol=1e-4)
    for name, value in preprocess.items():
        assert getattr(backbone.preprocess, name) == value
    assert backbone.notes == ()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"mean": "red"}',
        '{"std": [1, 1, 1], "size": [Infinity, 1]}',
        '{"crop_size": 5, "size": {"shortest_edge": 0}}',
        '{"mean": [1, 2]}',
        '{"std": [0, 1, 1]}',
        '{"channels": "XYZ"}',
    ],
)
def test_descriptions_that_mean_nothing_are_refused(tmp_path, text):
    path = saved(tmp_path)
    (tmp_path / "net.onnx.json").write_text(text)
    with pytest.raises((BackboneError, OptionError)):
        backbones.load(f"onnx:{path}")


def test_any_tensor_or_node_can_be_tapped(tmp_path):
    path = saved(tmp_path)
    backbone = backbones.load(f"onnx:{path}", taps=("c2", "node_early", "logits"))
    found = outputs(backbone)
    image = normalised(PIXELS)
    np.testing.assert_allclose(found["c2"], inner(network(), "c2", image).mean(axis=(2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["node_early"], found["early"], rtol=1e-6)
    np.testing.assert_allclose(found["logits"], inner(network(), "logits", image), rtol=1e-4, atol=1e-5)
    with pytest.raises(BackboneError, match=r"Unknown cut 'mixed7'; the taps found are .*features"):
        backbones.load(f"onnx:{path}", taps=("mixed7",))


def test_cutting_keeps_only_what_is_needed(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path)}")
    graph = backbones.cut(backbone, ["early"])
    assert [o.name for o in graph.graph.output] == ["early"]
    assert "w2" not in {t.name for t in graph.graph.initializer}
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"pixels": PIXELS})[0], outputs(backbone)["early"], rtol=1e-6)
    with pytest.raises(BackboneError, match="Unknown cut"):
        backbones.cut(backbone, ["w2"])


def test_weights_beside_the_graph(tmp_path):
    model = network()
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    backbone = backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    expected = inner(network(), "late", normalised(PIXELS)).mean(axis=(2, 3))
    np.testing.assert_allclose(outputs(backbone)["features"], expected, rtol=1e-4, atol=1e-6)
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[: len(weights) // 2] = bytes(len(weights) // 2)
    (tmp_path / "weights.bin").write_bytes(weights)
    changed = backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    assert changed.sha256 != backbone.sha256  # not the stale one
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(BackboneError, match=r"needs the file 'weights\.bin'"):
        backbones.load(f"onnx:{tmp_path / 'net.onnx'}")


def test_a_graph_that_takes_uint8_scales_itself(tmp_path):
    model = network()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node[0].input[0] = "as float"
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["as float"], to=TensorProto.FLOAT))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    backbone = backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    assert backbone.notes == ()
    expected = inner(network(), "late", normalised(PIXELS, 0, 1 / 255)).mean(axis=(2, 3))
    np.testing.assert_allclose(outputs(backbone)["features"], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(OptionError, match="scales them itself"):
        backbones.load(f"onnx:{tmp_path / 'net.onnx'}", options=InputOptions(mean=(0, 0, 0), std=(1, 1, 1)))


def test_an_unknown_resampling_is_told(tmp_path):
    path = saved(tmp_path)
    (tmp_path / "net.onnx.json").write_text(json.dumps({"mean": 0, "std": 1, "resample": 1}))
    backbone = backbones.load(f"onnx:{path}")
    assert backbone.preprocess.interpolation == "bilinear"
    assert ["resampling 1" in note for note in backbone.notes] == [True]


def test_weights_beside_a_branch_count_in_the_key(tmp_path):
    """A graph inside a node may keep its constants beside the file too."""
    weight = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "inner")
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["chosen"])], "branch", [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [1, 3, 1, 1])], [weight],
    )  # fmt: skip
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True), "yes")),
             helper.make_node("If", ["yes"], ["factor"], then_branch=branch, else_branch=branch)],
            "outer", [], [helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1, 3, 1, 1])],
        )
    )  # fmt: skip
    for attribute in model.graph.node[1].attribute:
        tensor = attribute.g.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "inner.bin"
    (tmp_path / "inner.bin").write_bytes(np.ones(3, np.float32).tobytes())
    assert _outside(model, tmp_path / "net.onnx") == [(tmp_path / "inner.bin").resolve()]
    (tmp_path / "inner.bin").unlink()
    with pytest.raises(BackboneError, match=r"needs the file 'inner\.bin'"):
        _outside(model, tmp_path / "net.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "", "a/../../secret.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    (tmp_path / "in").mkdir()
    model = network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    (tmp_path / "in" / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BackboneError, match="outside its folder"):
        backbones.load(f"onnx:{tmp_path / 'in' / 'net.onnx'}")


def hostile(change):
    model = network()
    change(model)
    return model.SerializeToString()


def with_input(kind, shape):
    def change(model):
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", kind, shape))

    return change


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


def infinite(model):
    weight = next(t for t in model.graph.initializer if t.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(np.full((12, 8, 3, 3), np.nan, np.float32), "w2"))


def old_opset(model):
    model.opset_import[0].version = 7


def unknown_operator(model):
    model.graph.node[1].op_type = "Teleport"


def wrong_shapes(model):
    weight = next(t for t in model.graph.initializer if t.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((12, 5, 3, 3), np.float32), "w2"))


HOSTILE = {
    "empty": b"", "text": b"not a graph", "cut off": network().SerializeToString()[:900], "zeros": bytes(5000),
    "no nodes": hostile(lambda m: m.graph.ClearField("node")),
    "no output": hostile(lambda m: m.graph.ClearField("output")),
    "no input": hostile(lambda m: m.graph.ClearField("input")), "two inputs": hostile(second_input),
    "three dimensions": hostile(with_input(TensorProto.FLOAT, ["n", 3, SIZE])),
    "integers": hostile(with_input(TensorProto.INT64, ["n", 3, SIZE, SIZE])),
    "one channel": hostile(with_input(TensorProto.FLOAT, ["n", 1, SIZE, SIZE])), "not finite": hostile(infinite),
    "old": hostile(old_opset), "unknown operator": hostile(unknown_operator), "wrong shapes": hostile(wrong_shapes),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs_are_refused_in_one_line(tmp_path, name):
    (tmp_path / "net.onnx").write_bytes(HOSTILE[name])
    with pytest.raises(BackboneError) as caught:
        backbones.load(f"onnx:{tmp_path / 'net.onnx'}")
    assert "\n" not in str(caught.value)


def test_other_sizes_than_the_graphs_are_refused(tmp_path):
    with pytest.raises(BackboneError, match="only takes 32 x 32"):
        backbones.load(f"onnx:{saved(tmp_path)}", options=InputOptions(size=(64, 64)))


def test_a_damaged_copy_in_the_cache_is_made_anew(tmp_path):
    first = backbones.load(f"onnx:{saved(tmp_path)}")
    first.graph.write_bytes(first.graph.read_bytes()[:-50])
    again = backbones.load(f"onnx:{saved(tmp_path)}")
    assert again == first
    (first.graph.parent / "backbone.json").write_text("{")
    assert backbones.load(f"onnx:{saved(tmp_path)}") == first


def test_a_cache_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    with pytest.raises(BackboneError, match="HEADSTART_CACHE"):
        backbones.load(f"onnx:{saved(tmp_path)}")


@pytest.mark.parametrize("name", ["", "vgg", "onnx", "onnx:", "onnx:nothing.onnx", "headstart-s:x", "torch:resnet"])
def test_unknown_backbones(name):
    with pytest.raises((BackboneError, OptionError)):
        backbones.load(name)


@pytest.mark.parametrize(
    "values",
    [{"mean": (1, 2)}, {"std": (0, 1, 1)}, {"std": (1, 1)}, {"channels": "GBR"}, {"mean": (float("nan"),) * 3}],
)
def test_input_options_that_mean_nothing(values):
    with pytest.raises(OptionError):
        InputOptions(**values)


def test_the_built_in_backbone():
    backbone = backbones.load("headstart-s")
    assert backbone.preprocess.height == backbone.preprocess.width == 160
    assert backbone.taps[-1].name == "features"
    assert len(backbone.taps) == 5
    pixels = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), np.uint8)
    found = outputs(backbone, pixels)
    assert all(np.isfinite(value).all() and value.std() > 0 for value in found.values())
    with pytest.raises(OptionError):
        backbones.load("headstart-s", options=InputOptions(size=(96, 96)))
    with pytest.raises(BackboneError, match="headstart-s has"):
        backbones.load("headstart-s", taps=("mixed7",))


def test_a_real_network(shared):
    path = shared / "weights" / "mobilenetv2-imagenet.onnx"
    backbone = backbones.load(f"onnx:{path}")
    assert (backbone.preprocess.height, backbone.preprocess.width) == (224, 224)
    assert backbone.taps[-1].channels == 1280
    assert [tap.size[0] for tap in backbone.taps if tap.size] == [112, 56, 28, 14, 7]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    features = outputs(backbone, pixels)["features"]
    model = onnx.load(path)
    session = onnxruntime.InferenceSession(path)
    logits = session.run(None, {"pixels": normalised(pixels)})[0]
    last = next(n for n in reversed(model.graph.node) if n.op_type in ("Gemm", "MatMul", "Conv"))
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    matrix = weights[last.input[1]].astype(np.float64).reshape(weights[last.input[1]].shape[:2])
    matrix = matrix.T if matrix.shape[0] != 1280 else matrix
    bias = weights[last.input[2]] if len(last.input) > 2 else logits.mean(axis=1, keepdims=True) * 0
    np.testing.assert_allclose(features @ matrix + bias, logits, rtol=1e-3, atol=2e-3 * np.abs(logits).max())


@pytest.mark.parametrize("last", [False, True])
def test_a_flat_cut_is_the_whole_map_place_by_place(tmp_path, last):
    model, path = network(last=last), saved(tmp_path, last=last)
    backbone = backbones.load(f"onnx:{path}", taps=("late/flat", "early/flat"))
    taps = {tap.name: tap for tap in backbone.taps}
    assert (taps["late/flat"].channels, taps["late/flat"].size) == (8 * 8 * 12, (8, 8))
    assert backbone.taps[-1].name == "features"  # what groups are found by stays the pooled one
    found = outputs(backbone)
    image = normalised(PIXELS, last=last)
    for name in ("early", "late"):
        expected = inner(model, name, image).transpose(0, 2, 3, 1).reshape(len(PIXELS), -1)
        np.testing.assert_allclose(found[f"{name}/flat"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["features"], inner(model, "late", image).mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)


def test_a_vector_cannot_be_laid_flat(tmp_path):
    with pytest.raises(BackboneError, match="no map"):
        backbones.load(f"onnx:{saved(tmp_path)}", taps=("flat/flat",))


@pytest.mark.parametrize("kind", ["timm", "keras"])
def test_a_zoo_that_is_not_installed_says_what_to_install(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)  # what an import of a missing package finds
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[") as caught:
        backbones.load(f"{kind}:anything")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rest", ["", "?a=1", "../x", "a b", "x?", "x?a", "x?a=1&a=2", "x?=1", "x?a b=1", "hf-hub:org/x", "x/y", "x" * 200]
)
def test_ids_of_the_zoo_that_mean_nothing(rest):
    if rest == "x?":  # no arguments
        assert parse("timm", rest) == ("x", {})
        return
    with pytest.raises(OptionError) as caught:
        backbones.load(f"timm:{rest}")
    assert "\n" not in str(caught.value)


def test_arguments_in_an_id():
    text = "net?pad_type=same&num_classes=1001&alpha=0.5&se=true&drop=False&act=none"
    values = {"pad_type": "same", "num_classes": 1001, "alpha": 0.5, "se": True, "drop": False, "act": None}
    assert parse("timm", text) == ("net", values)


def test_weights_files_that_are_not_there(tmp_path):
    with pytest.raises(BackboneError, match="no file of weights"):
        backbones.load("timm:resnet18", options=InputOptions(weights=str(tmp_path / "none.pth")))
    for name in ("headstart-s", f"onnx:{saved(tmp_path)}"):
        with pytest.raises(OptionError, match="leave"):
            backbones.load(name, options=InputOptions(weights="w.pth"))
