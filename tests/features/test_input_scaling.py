"""A backbone whose scaling nobody names: it is found by batch norms and training images, and only there."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers.graphs import NORMS, network, normed, trained_network

from headstart import Compute, FitOptions, backbones, fit_dataset, open_dataset
from headstart.backbones import InputOptions
from headstart.backbones.scaling import USUAL, Scaling
from headstart.features.input_scaling import IMAGES, open_backbone, sample_pixels
from headstart.images.preprocess import Preprocess

CAFFE = Scaling(*USUAL["0 to 255 less ImageNet's mean"], "BGR")
IMAGENET = Scaling(*USUAL["ImageNet's mean and deviation"])


@pytest.fixture
def train(photos):
    return open_dataset(photos).split("train")


@pytest.mark.parametrize("scaling", [Scaling(*USUAL["-1 to 1"]), IMAGENET, CAFFE], ids=str)
def test_the_scaling_of_the_training_is_taken(train, tmp_path, scaling):
    id = trained_network(scaling, train, tmp_path / "net.onnx")
    opened = open_backbone(id, None, (), train)
    assert opened.scaling.scaling == scaling
    assert opened.scaling.measured
    assert opened.backbone.assumption is None
    assert opened.backbone.notes == ()
    assert f"its batch norms fit {scaling}, which is taken" in opened.scaling.note
    given = InputOptions(mean=scaling.mean, std=scaling.std, channels=scaling.channels)
    assumed = backbone_with(id, None)
    explicit = backbone_with(id, given)
    assert opened.backbone.sha256 == explicit.sha256
    assert (opened.backbone.sha256 == assumed.sha256) == (str(scaling) == "-1 to 1")
    assert opened.options == (None if str(scaling) == "-1 to 1" else given)


def backbone_with(id, options):
    return backbones.load(id, options=options)


def test_what_is_given_or_described_is_never_replaced(train, tmp_path):
    path = tmp_path / "net.onnx"
    id = trained_network(CAFFE, train, path)
    for options in (InputOptions(mean=(0.5,) * 3, std=(0.5,) * 3), InputOptions(mean=(0.1,) * 3, std=(1.0,) * 3)):
        opened = open_backbone(id, options, (), train)
        assert (opened.scaling, opened.options) == (None, options)
        assert opened.backbone == backbone_with(id, options)
    (tmp_path / "net.onnx.json").write_text(json.dumps({"mean": 0.5, "std": 0.5}))
    opened = open_backbone(id, None, (), train)
    assert (opened.scaling, opened.backbone) == (None, backbone_with(id, None))


def test_other_options_stay(train, tmp_path):
    id = trained_network(CAFFE, train, tmp_path / "net.onnx")
    opened = open_backbone(id, InputOptions(crop=0.875, resize="squash"), (), train)
    assert opened.options == InputOptions(CAFFE.mean, CAFFE.std, "BGR", crop=0.875, resize="squash")
    assert opened.backbone.preprocess.resize == "squash"


def test_a_network_without_batch_norms_says_what_was_assumed(train, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    opened = open_backbone(f"onnx:{path}", None, (), train)
    assert not opened.scaling.measured
    assert "assumed -1 to 1" in opened.scaling.note
    assert opened.scaling.note.endswith("It has no batch norm with which images could be compared.")
    assert replace(opened.backbone, notes=()) == replace(backbone_with(f"onnx:{path}", None), notes=(), assumption=None)


def test_where_none_fits_the_assumption_stands(train, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(normed([(np.full(8, 500.0), np.ones(8)), *NORMS[1:]]), path)
    opened = open_backbone(f"onnx:{path}", None, (), train)
    assert not opened.scaling.measured
    assert opened.scaling.scaling == Scaling(*USUAL["-1 to 1"])
    assert "assumed -1 to 1" in opened.scaling.note
    assert "None of the usual scalings fits its batch norms clearly" in opened.scaling.note
    assert opened.options is None


def test_a_damaged_graph_of_the_batch_norms_is_made_again(train, tmp_path):
    id = trained_network(CAFFE, train, tmp_path / "net.onnx")
    graph = backbone_with(id, None).assumption.norms.graph
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-9])
    assert open_backbone(id, None, (), train).scaling.scaling == CAFFE
    assert graph.read_bytes() == whole


def test_images_that_cannot_be_read_are_left_out(train, tmp_path):
    assert len(train) == 28 < IMAGES
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    broken = open_dataset(tmp_path)
    assert sample_pixels(broken, Preprocess(8, 8)).shape == (0, 8, 8, 3)
    assert len(sample_pixels(train, Preprocess(8, 8))) == 28
    assert len(sample_pixels(train, Preprocess(4096, 2048))) == 5  # of 25 MB each
    opened = open_backbone(trained_network(CAFFE, train, tmp_path / "net.onnx"), None, (), broken)
    assert not opened.scaling.measured
    assert "assumed -1 to 1" in opened.scaling.note


def test_a_fit_takes_it_and_records_it(photos, train, tmp_path):
    id = trained_network(CAFFE, train, tmp_path / "net.onnx")
    result = fit_dataset(open_dataset(photos), FitOptions(backbone=id, compute=Compute("onnxruntime")))
    recorded = result.model.run["backbone"]["scaling"]
    assert (recorded["mean"], recorded["std"], recorded["channels"]) == (CAFFE.mean, CAFFE.std, "BGR")
    assert recorded["found_by"] == "batch norms"
    assert min(recorded["divergences"], key=recorded["divergences"].__getitem__) == str(CAFFE)
    assert sum("its batch norms fit" in note for note in result.notes) == 1
    assert not any("assumed" in note for note in result.notes)
    assert result.options.input_options == InputOptions(CAFFE.mean, CAFFE.std, "BGR")
    given = fit_dataset(open_dataset(photos), replace(result.options, cache=True))
    assert given.model.run["backbone"]["scaling"] is None
    assert given.model.sha256 == result.model.sha256
    assert given.data.features.misses == 0  # the same graph, so the same entries of the cache
