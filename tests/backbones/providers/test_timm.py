"""timm: against PyTorch Image Models. Runs where it is installed (``make zoo``)."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.frameworks import assert_close, blobs, needs, served, timm_image, timm_network

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.errors import HeadstartError

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "timm", "onnxscript")

SIZES = {
    "resnet18": 64,
    "resnet50": 64,
    "resnetv2_50": 64,
    "resnext26ts": 64,
    "inception_v3": 128,
    "densenet121": 64,
    "mobilenetv1_100": 64,
    "mobilenetv2_050?pad_type=same": 96,
    "mobilenetv3_small_050": 64,
    "mobilenetv4_conv_small_050": 96,
    "mnasnet_small": 64,
    "efficientnet_lite0": 64,
    "tf_efficientnetv2_b0": 96,
    "convnext_atto": 64,
    "regnetx_002": 64,
    "regnety_002": 64,
    "legacy_xception": 96,
    "vit_tiny_patch16_224": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 224,
    "vit_small_patch14_reg4_dinov2": 98,
    "ghostnet_050": 64,
    "lcnet_050": 64,
    "nasnetalarge": 96,
}


@pytest.mark.parametrize("name", SIZES)
def test_prepared_networks_give_what_timm_gives(name, tmp_path):
    import torch

    size = SIZES[name]
    network, path = timm_network(name, size, tmp_path)
    backbone = backbones.load(f"timm:{name}", options=InputOptions(weights=str(path), size=(size, size)))
    pixels = blobs(size)
    values = served(backbone, pixels)
    image = timm_image(network, pixels)
    if hasattr(network, "set_input_size") and size != network.pretrained_cfg["input_size"][1]:
        network.set_input_size(img_size=(size, size))
    with torch.no_grad():
        last = network.forward_features(image)
        expected = network.forward_head(last, pre_logits=True)
        assert_close(values["features"], expected.numpy())
        assert len(backbone.taps) >= 3
        assert backbone.batch is None
        assert backbone.taps[-1].name == "features"
        if hasattr(network, "forward_intermediates"):
            stages = getattr(network.feature_info, "info", network.feature_info)
            names = [stage["module"] for stage in stages]
            intermediates = network.forward_intermediates(image, intermediates_only=True)
            for tap in backbone.taps[:-1]:
                value = intermediates[names.index(tap.name)].numpy()
                assert_close(values[tap.name], value)
                assert (tap.channels, tap.size) == (value.shape[1], value.shape[2:])


def test_a_second_time_needs_no_framework(tmp_path):
    _, path = timm_network("mobilenetv3_small_050", 64, tmp_path)
    options = InputOptions(weights=str(path), size=(64, 64))
    first = backbones.load("timm:mobilenetv3_small_050", options=options)
    assert first == backbones.load("timm:mobilenetv3_small_050", options=options, taps=(first.taps[0].name,))
    code = (
        "import sys\nfrom headstart import backbones\n"
        f"o = backbones.InputOptions(weights={str(path)!r}, size=(64, 64))\n"
        "print(backbones.load('timm:mobilenetv3_small_050', options=o).sha256)\n"
        "assert not {'torch', 'timm', 'onnx'} & set(sys.modules)"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (completed.returncode, completed.stdout.strip()) == (0, first.sha256), completed.stderr
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    assert backbones.load("timm:mobilenetv3_small_050", options=options).graph != first.graph


def test_the_networks_own_description_is_kept(tmp_path):
    _, path = timm_network("mobilenetv3_small_050", 64, tmp_path)
    backbone = backbones.load("timm:mobilenetv3_small_050", options=InputOptions(weights=str(path), size=(64, 64)))
    expected = {"height": 64, "width": 64, "resize": "shortest", "crop": 0.875, "interpolation": "bicubic"}
    assert backbone.preprocess.to_dict() == expected
    assert "weights.safetensors (sha256 " in backbone.source


class Touch:
    """A pickle that would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_state_dicts_that_do_not_fit_are_refused_in_one_line(tmp_path, monkeypatch):
    import torch

    network, path = timm_network("mobilenetv3_small_050", 64, tmp_path)
    state = network.state_dict()
    file = tmp_path / "w.pth"
    options = InputOptions(weights=str(file), size=(64, 64))

    def error(content, name="mobilenetv3_small_050"):
        torch.save(content, file)
        with pytest.raises(HeadstartError) as caught:
            backbones.load(f"timm:{name}", options=options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    first = "conv_stem.weight"
    assert f"it lacks {first}" in error({k: v for k, v in state.items() if k != first})
    assert f"{first} is (3,) where (16, 3, 3, 3) is expected" in error({**state, first: torch.zeros(3)})
    assert "the model has no spare.weight" in error({**state, "spare.weight": torch.zeros(3)})
    assert "not a tensor" in error({**state, first: 3})
    assert "no state dict" in error([1, 2])
    assert "does not fit" in error(state, "mobilenetv3_small_075")
    assert "did you mean" in error(state, "mobilenetv3_smal_050")
    assert "cannot build" in error(state, "mobilenetv3_small_050?colour=red")
    assert "leave it out" in error(state, "mobilenetv3_small_050?checkpoint_path=/etc/passwd")
    assert "cannot be read as weights" in error(Touch(tmp_path / "opened"))
    assert not (tmp_path / "opened").exists()
    monkeypatch.setattr("headstart.backbones.providers.timm.MAX_FILE_BYTES", 1000)
    assert "limit of 1,000" in error(state)
    monkeypatch.undo()
    without_classifier = {f"module.{k}": v for k, v in state.items() if "classifier" not in k}
    torch.save({"state_dict": without_classifier}, file)
    wrapped = backbones.load("timm:mobilenetv3_small_050", options=options)
    plain = backbones.load("timm:mobilenetv3_small_050", options=InputOptions(weights=str(path), size=(64, 64)))
    assert wrapped.sha256 == plain.sha256
