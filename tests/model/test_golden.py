"""``verify``: a machine gives the predictions of the fit, or an error names the difference."""

from dataclasses import replace

import numpy as np
import pytest

from headstart.errors import HeadstartError, ModelError, VerifyError
from headstart.features.runtime import RuntimeInfo, resolve_runtime
from headstart.model.folder import read_model
from headstart.model.golden import GoldenImages, make_golden, verify

ONNXRUNTIME = resolve_runtime("onnxruntime")


@pytest.fixture
def model(model_folder):
    return read_model(model_folder)


def test_verify_passes_on_every_runtime_here(model):
    for runtime in ("onnxruntime", "openvino"):
        try:
            info = resolve_runtime(runtime)
        except HeadstartError:
            continue
        result = verify(model, info)
        assert result.images == 8
        assert result.difference <= result.tolerance


def test_other_probabilities_and_other_pixels_fail_verification(model):
    golden = model.golden
    swapped = replace(golden, probabilities=golden.probabilities[:, ::-1].copy())
    with pytest.raises(VerifyError, match="differs by"):
        verify(replace(model, golden=swapped), ONNXRUNTIME)
    with pytest.raises(VerifyError, match=r"decodes to other pixels here \(by up to 1 of 255\)"):
        verify(replace(model, golden=replace(golden, decoded=golden.decoded ^ 1)), ONNXRUNTIME)
    with pytest.raises(VerifyError, match="differs by"):
        verify(replace(model, golden=replace(golden, pixels=255 - golden.pixels)), ONNXRUNTIME)
    with pytest.raises(ModelError, match="no golden sample"):
        verify(replace(model, golden=None), RuntimeInfo("onnxruntime", "0", "fp32"))


def test_other_ood_scores_fail_verification(model):
    shifted = replace(model.golden, ood_scores=model.golden.ood_scores + np.float32(0.1))
    with pytest.raises(VerifyError, match="in an OOD score"):
        verify(replace(model, golden=shifted), ONNXRUNTIME)
    assert verify(model, ONNXRUNTIME).ood_difference <= 0.002


def test_the_tolerance_of_a_precision_is_twice_the_difference_in_the_fit(model):
    golden = model.golden

    def make(probabilities):
        images = GoldenImages(list(golden.pixels), probabilities, golden.ood_scores, "bf16")
        return make_golden(model.graph, model.preprocess, model.batch, images)

    shifted = np.clip(golden.probabilities + 0.2 * np.array([1, -1]), 0, 1)
    sample = make(shifted)
    assert sample.tolerance["bf16"] == pytest.approx(2 * np.abs(shifted - golden.probabilities).max(), abs=1e-5)
    assert sample.tolerance["fp32"] == 0.002
    assert make(golden.probabilities).tolerance["bf16"] == 0.05
    np.testing.assert_allclose(sample.probabilities, golden.probabilities, atol=1e-6)


def test_classes_that_change_within_the_tolerance_are_counted(model):
    swapped = replace(model.golden, probabilities=model.golden.probabilities[:, ::-1].copy(), tolerance={"fp32": 1.0})
    assert verify(replace(model, golden=swapped), ONNXRUNTIME).changed == 8
    assert verify(model, ONNXRUNTIME).changed == 0
