"""headstart-s: the file is the one its card describes, fp16 costs nothing, and it transfers."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers.graphs import tap_values
from onnx import TensorProto, numpy_helper

import headstart as hs
from headstart import backbones
from headstart.backbones import Backbone, InputOptions
from headstart.data import open_dataset
from headstart.data.rendered import render
from headstart.errors import BackboneError, OptionError
from headstart.features import Compute, embed
from headstart.heads.selection import HeadOptions, select_head
from headstart.heads.training_set import TrainingSet
from headstart.splits.groups import find_groups

TAPS = {"stage2": 24, "stage3": 32, "stage4": 96, "stage5": 320, "features": 1280}


@pytest.fixture(scope="module")
def built_in() -> Backbone:
    return backbones.load("headstart-s")


def test_it_runs_and_refuses_options_and_unknown_cuts(built_in):
    assert built_in.preprocess.height == built_in.preprocess.width == 160
    assert built_in.taps[-1].name == "features"
    assert len(built_in.taps) == 5
    pixels = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), np.uint8)
    values = tap_values(built_in, pixels)
    assert all(np.isfinite(value).all() and value.std() > 0 for value in values.values())
    with pytest.raises(OptionError):
        backbones.load("headstart-s", options=InputOptions(size=(96, 96)))
    with pytest.raises(BackboneError, match="headstart-s has"):
        backbones.load("headstart-s", taps=("mixed7",))


def test_the_file_is_the_one_that_the_card_describes(built_in):
    data = built_in.graph.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    card = (built_in.graph.parent / "CARD.md").read_text("utf-8")
    description = json.loads((built_in.graph.parent / "backbone.json").read_text("utf-8"))
    assert re.findall(r"`([0-9a-f]{64})`", card) == [sha256, backbones.load("headstart-s", precision="int8").sha256]
    assert description["sha256"] == sha256 == built_in.sha256
    assert len(data) <= 8_000_000
    assert {tap.name: tap.channels for tap in built_in.taps} == TAPS
    assert (built_in.preprocess.height, built_in.preprocess.width) == (160, 160)
    for word in ("Teacher", "Images", "Training", "Licence", "good and bad at"):
        assert word in card
    parameters = re.search(r"([\d.]+) M parameters", card)
    tensors = onnx.load(built_in.graph).graph.initializer
    weights = [tensor for tensor in tensors if len(tensor.dims) == 4]
    biases = [tensor for tensor in tensors if len(tensor.dims) == 1 and tensor.name.endswith("bias")]
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    count = sum(int(np.prod(tensor.dims)) for tensor in [*weights, *biases])
    assert float(parameters[1]) == pytest.approx(count / 1e6, abs=0.006)


def with_other_fp32_weights(built_in: Backbone, seed: int | None) -> Backbone:
    """The backbone in fp32, as if made of other weights that fp16 rounds to the same: off by up to half a step."""
    model, rng = onnx.load(built_in.graph), np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            half = numpy_helper.to_array(tensor)
            step = np.abs(np.spacing(half)).astype(np.float32)
            value = half.astype(np.float32) + (0 if seed is None else rng.uniform(-0.5, 0.5, half.shape) * step)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    graph = model.SerializeToString()
    sha256 = hashlib.sha256(graph).hexdigest()
    return Backbone("fp32", graph, sha256, built_in.preprocess, built_in.taps, licence="", source="")


@pytest.mark.slow
def test_fp16_storage_costs_no_more_than_a_fifth_of_a_point(built_in, shared):
    """Against fp32 weights that differ by what fp16 took: with one head, on all images of both sets."""
    right = dict.fromkeys((None, 0, 1, 2), 0)
    count = 0
    for name in ("ants-bees", "horse-or-human"):
        dataset = open_dataset(shared / "data" / name)
        truth, selected = None, None
        for seed in right:
            deepest = replace(with_other_fp32_weights(built_in, seed), taps=built_in.taps[-1:])
            features = embed(dataset, deepest, Compute("onnxruntime"))
            x = features.values["features"]
            if selected is None or truth is None:
                truth = np.array([dataset.classes.index(str(dataset.items[i].label)) for i in features.index])
                train = np.array([dataset.items[i].split == "train" for i in features.index])
                groups = find_groups(
                    features.content_hashes[train], features.tiny_images[train], x[train], truth[train]
                )
                training_set = TrainingSet.of({"features": x[train]}, truth[train], groups.index)
                selected = select_head(training_set, HeadOptions(kind="ridge"))
            predicted = selected.head.scores(x[~train].astype(np.float32)).argmax(axis=1)
            right[seed] += int((predicted == truth[~train]).sum())
        count += int((~train).sum())
    lost = np.mean([right[seed] for seed in (0, 1, 2)]) - right[None]
    assert count == 408 or count == 409
    assert abs(lost) / count <= 0.002


@pytest.mark.slow
def test_accuracy_on_new_figures(tmp_path):
    """The sample with the defaults: at least 0.98 on other figures."""
    render("horses-or-humans", tmp_path / "set", train=1000, validation=256)
    fitted = hs.ImageClassifier("headstart-s", cache=False).fit(tmp_path / "set")
    assert fitted.accuracy_["validation"].value >= 0.98
    assert fitted.evaluate(tmp_path / "set").accuracy == fitted.accuracy_["validation"]
