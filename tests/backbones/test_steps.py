"""The steps of features: measured on the images of the package, the same for all who prepare a backbone."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.graphs import saved
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headstart import backbones
from headstart.backbones import store
from headstart.backbones.steps import (
    EXPONENTS,
    HEADROOM,
    LIMIT,
    exponents_of,
    measure_steps,
    step_images,
    steps_sha256,
    tap_from_dict,
    tap_to_dict,
    with_steps,
)
from headstart.errors import BackboneError
from headstart.features import Compute
from headstart.features.runtime import load_graph, run_padded

POSITIVE = st.floats(2.0**-100, 2.0**100, width=32)


@given(arrays.arrays(np.float32, st.integers(1, 20), elements=st.one_of(st.just(0.0), POSITIVE)))
def test_a_step_is_the_smallest_power_of_two_that_leaves_headroom(largest):
    exponents = exponents_of(largest)
    if not largest.any():
        assert (exponents == -12).all()
        return
    typical = np.median(largest[largest > 0].astype(np.float64))
    for value, exponent in zip(largest.astype(np.float64), exponents, strict=True):
        reach, step = HEADROOM * max(value, typical), 2.0 ** int(exponent)
        assert reach <= LIMIT * step or exponent == EXPONENTS[1]
        assert reach > LIMIT * step / 2 or exponent == EXPONENTS[0]


def test_the_images_of_the_package_are_those_of_this_version():
    images = step_images()
    assert [image.size for image in images] == [(128, 128)] * 32
    # Others would give other steps, and so another identity of every backbone.
    digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    assert digest == "e7284323eb45796e154a77180c4791ea728a02eda9a861a2446eff3994bdbf17"


def test_the_steps_of_a_backbone_follow_from_its_values(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path)}")
    pixels = np.stack([backbone.preprocess(image) for image in step_images()])
    outputs = run_padded(load_graph(backbone.graph, Compute("onnxruntime")), pixels, None)
    for tap in backbone.taps:
        expected = exponents_of(np.abs(outputs[tap.name]).reshape(32, -1).max(axis=0))
        assert tap.exponents == tuple(expected.tolist())


def test_a_graph_of_one_batch_size_has_the_steps_of_any(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path)}")
    assert measure_steps(replace(backbone, batch=5)).taps == backbone.taps


@pytest.mark.parametrize("name", ["headstart-s", "headstart-m"])
def test_built_in_backbones_have_the_steps_that_are_measured_here(name):
    backbone = backbones.load(name)
    assert measure_steps(backbone).taps == backbone.taps
    assert backbones.load(name, precision="int8").taps == backbone.taps


def test_taps_are_the_same_after_writing_and_reading(tmp_path):
    for tap in backbones.load("headstart-s").taps:
        assert tap_from_dict(json.loads(json.dumps(tap_to_dict(tap)))) == tap
        assert tap_from_dict(tap_to_dict(replace(tap, exponents=None))) == replace(tap, exponents=None)


@pytest.mark.parametrize("exponents", ["1 2", "1 2 x", "1 2 999", "1 2 3 4", ""])
def test_steps_that_do_not_fit_are_refused(exponents):
    values = {"name": "a", "channels": 3, "depth": 1.0, "size": None, "exponents": exponents}
    with pytest.raises(ValueError, match=r"steps|invalid literal"):
        tap_from_dict(values)


def test_a_backbone_that_an_earlier_version_stored_gets_steps(tmp_path):
    backbone = backbones.load(f"onnx:{saved(tmp_path)}")
    store.put("birds", backbone)
    file = store.named_folder("birds") / "backbone.json"
    description = json.loads(file.read_text())
    for tap in description["taps"]:
        del tap["exponents"]
    file.write_text(json.dumps(description))
    assert store.get("birds").taps == backbone.taps
    assert json.loads(file.read_text())["taps"][0]["exponents"] == " ".join(map(str, backbone.taps[0].exponents))
    assert backbones.load("birds").taps == backbone.taps


def test_the_hash_depends_on_every_step():
    taps = backbones.load("headstart-s").taps
    other = replace(taps[0], exponents=(taps[0].exponents[0] + 1, *taps[0].exponents[1:]))
    assert steps_sha256((other, *taps[1:])) != steps_sha256(taps)


def test_a_backbone_with_steps_is_returned_as_it_is():
    backbone = backbones.load("headstart-s")
    assert with_steps(backbone) is backbone


def test_a_graph_that_does_not_run_is_refused():
    backbone = replace(backbones.load("headstart-s"), graph=b"no graph")
    with pytest.raises(BackboneError, match="cannot be run"):
        measure_steps(backbone)
