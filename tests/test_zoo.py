"""timm: and keras: against their own frameworks. Runs where they are installed (``make zoo``)."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.errors import BackboneError, HeadstartError, OptionError

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
os.environ["KERAS_BACKEND"] = "torch"
for needed in ("torch", "timm", "keras", "h5py", "onnxscript"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed} (make zoo installs it)", allow_module_level=True)

TIMM = {
    "resnet18": 64, "resnet50": 64, "resnetv2_50": 64, "resnext26ts": 64,
    "inception_v3": 128, "densenet121": 64, "mobilenetv1_100": 64, "mobilenetv2_050?pad_type=same": 96,
    "mobilenetv3_small_050": 64, "mobilenetv4_conv_small_050": 96, "mnasnet_small": 64, "efficientnet_lite0": 64,
    "tf_efficientnetv2_b0": 96, "convnext_atto": 64, "regnetx_002": 64, "regnety_002": 64, "legacy_xception": 96,
    "vit_tiny_patch16_224": 64, "deit_tiny_distilled_patch16_224": 64, "swin_tiny_patch4_window7_224": 224,
    "vit_small_patch14_reg4_dinov2": 98, "ghostnet_050": 64, "lcnet_050": 64,
}  # fmt: skip
KERAS = {
    "VGG16": 64, "VGG19": 48, "ResNet50": 64, "ResNet50V2": 64, "InceptionV3": 96, "DenseNet121": 64, "MobileNet": 64,
    "MobileNetV2": 96, "MobileNetV3Small": 64, "MobileNetV3Large": 64, "EfficientNetB0": 64, "EfficientNetV2B0": 96,
    "ConvNeXtTiny": 64, "DenseNet169": 64, "Xception": 96,
}  # fmt: skip


def pictures(size, count=3):
    """Soft random blobs: random noise alone makes every picture look the same to a network."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 6, 6, 3))
    fine = np.repeat(np.repeat(coarse, -(-size // 6), axis=1), -(-size // 6), axis=2)[:, :size, :size]
    return np.clip(fine + rng.integers(-20, 21, fine.shape), 0, 255).astype(np.uint8)


def served(backbone, pixels):
    session = onnxruntime.InferenceSession(backbone.graph, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, {"pixels": pixels}), strict=True))


def assert_same(found, wanted, share=1e-3):
    """Equal within a share of how much the pictures differ from each other, a far stricter measure than their size."""
    wanted = wanted.mean(axis=tuple(range(2, wanted.ndim))) if wanted.ndim > 2 else wanted
    spread = np.linalg.norm(wanted - wanted.mean(axis=0))
    assert spread > 1e-4 * np.linalg.norm(wanted)  # else nothing would be compared
    assert np.linalg.norm(found - wanted) < share * np.linalg.norm(wanted)
    assert np.linalg.norm(found - wanted) < 0.05 * spread


def timm_network(name, size, folder):
    """A timm network with random weights whose batch norms fit its signals, and a file of them."""
    import timm
    import torch
    from safetensors.torch import save_file

    from headstart.backbones.exported import parse

    plain, arguments = parse("timm", name)
    torch.manual_seed(0)
    network = timm.create_model(plain, **arguments)
    images = torch.rand(8, 3, *network.pretrained_cfg["input_size"][1:] if hasattr(network, "set_input_size") else
                        (size, size))  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        if any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()):
            network.train()(images)
    path = folder / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return network.eval(), path


@pytest.mark.parametrize("name", TIMM)
def test_timm_networks_equal_themselves(name, tmp_path):
    import torch

    size = TIMM[name]
    network, path = timm_network(name, size, tmp_path)
    backbone = backbones.load(f"timm:{name}", options=InputOptions(weights=str(path), size=(size, size)))
    pixels = pictures(size)
    found = served(backbone, pixels)
    mean, std = (np.array(network.pretrained_cfg[key]) for key in ("mean", "std"))
    image = torch.tensor(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)
    if hasattr(network, "set_input_size") and size != network.pretrained_cfg["input_size"][1]:
        network.set_input_size(img_size=(size, size))
    with torch.no_grad():
        last = network.forward_features(image)
        wanted = network.forward_head(last, pre_logits=True)
        # A deep network with random weights can magnify rounding: as much as it moves the framework's own is allowed.
        exact = network.double().forward_head(network.forward_features(image.double()), pre_logits=True).numpy()
        network.float()
        share = max(1e-3, 3 * np.linalg.norm(exact - wanted.numpy()) / np.linalg.norm(exact))
        assert share < 0.05
        assert_same(found["features"], wanted.numpy(), share)
        assert len(backbone.taps) >= 3
        assert backbone.batch is None
        assert backbone.taps[-1].name == "features"
        if hasattr(network, "forward_intermediates"):
            info = getattr(network.feature_info, "info", network.feature_info)
            names = [stage["module"] for stage in info]
            between = network.forward_intermediates(image, intermediates_only=True)
            for tap in backbone.taps[:-1]:
                value = between[names.index(tap.name)].numpy()
                assert_same(found[tap.name], value, share)
                assert (tap.channels, tap.size) == (value.shape[1], value.shape[2:])


def keras_network(name, size, **options):
    """A Keras network with random weights whose batch norms fit its signals."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3), **options)
    rng = np.random.default_rng(0)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    for variable in network.trainable_variables:
        if len(variable.shape) == 1:
            variable.assign(variable.numpy() + 0.1 * rng.normal(size=variable.shape))
    if norms:
        scaled = sys.modules[getattr(keras.applications, name).__module__].preprocess_input
        network(scaled(pictures(size, 8).astype(np.float32)), training=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum
    return network


def keras_values(network, pixels, layer=None):
    import keras

    module = sys.modules[getattr(keras.applications, network.headstart_name).__module__]
    image = module.preprocess_input(pixels.astype(np.float32))
    if layer:
        network = keras.Model(network.inputs, network.get_layer(layer).output)
    value = np.asarray(network(image, training=False).detach().cpu().numpy())
    return value.mean(axis=(1, 2))


@pytest.mark.parametrize("name", KERAS)
def test_keras_networks_equal_themselves(name, tmp_path):
    size = KERAS[name]
    network = keras_network(name, size)
    object.__setattr__(network, "headstart_name", name)
    path = tmp_path / "w.weights.h5"
    network.save_weights(path)
    backbone = backbones.load(f"keras:{name}", options=InputOptions(weights=str(path), size=(size, size)))
    pixels = pictures(size)
    found = served(backbone, pixels)
    assert backbone.batch is None
    assert len(backbone.taps) >= 3
    for tap in backbone.taps:
        layer = network.layers[-1].name if tap.name == "features" else tap.name
        assert_same(found[tap.name], keras_values(network, pixels, layer))
        height, width, channels = network.get_layer(layer).output.shape[1:]
        assert (tap.size, tap.channels) == ((height, width), channels)
    kinds = [node.op_type for node in onnx.load(backbone.graph).graph.node]
    # ResNet V2 pads with zeros before a maximum of values of either sign.
    assert "Pad" not in kinds or name == "ResNet50V2"
    if name != "ConvNeXtTiny":  # its norms are over the channels of each pixel
        assert kinds.count("Transpose") == 1


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """InceptionV3 at 150 as in the lesson, its framework and a legacy file of its weights."""
    import h5py

    network = keras_network("InceptionV3", 150)
    object.__setattr__(network, "headstart_name", "InceptionV3")
    path = tmp_path_factory.mktemp("lesson") / "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with h5py.File(path, "w") as file:  # as Keras 1 wrote it: other names, one group a layer, lists of names
        names = []
        for number, layer in enumerate(network.layers):
            group = file.create_group(f"layer_{number + 7}")
            names.append(group.name[1:].encode())
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            for i, weight in enumerate(weights):
                group[f"old_{i}:0"] = weight.numpy()
            group.attrs["weight_names"] = [f"old_{i}:0".encode() for i in range(len(weights))]
        file.attrs["layer_names"] = names
        file.attrs["backend"] = b"tensorflow"
    return network, path


def test_the_lesson(inception):
    network, path = inception
    options = InputOptions(weights=str(path), size=(150, 150))
    backbone = backbones.load("keras:InceptionV3", options=options, taps=("mixed7",))
    tap = next(tap for tap in backbone.taps if tap.name == "mixed7")
    assert (*tap.size, tap.channels) == (7, 7, 768)
    pixels = pictures(150)
    assert_same(served(backbone, pixels)["mixed7"], keras_values(network, pixels, "mixed7"))
    with pytest.raises(BackboneError, match=r"Unknown cut 'mixed77'.*mixed7"):
        backbones.load("keras:InceptionV3", options=options, taps=("mixed77",))


def test_legacy_files_that_do_not_fit_say_what_is_missing(inception):
    _, path = inception
    with pytest.raises(BackboneError, match=r"does not fit keras:Xception: .* is \(.*\), the file has"):
        backbones.load("keras:Xception", options=InputOptions(weights=str(path), size=(96, 96)))


def test_mobilenet_v2_at_160_by_either_framework(tmp_path):
    network = keras_network("MobileNetV2", 160)
    network.save(tmp_path / "net.keras")
    options = InputOptions(weights=str(tmp_path / "net.keras"), size=(160, 160))
    backbone = backbones.load("keras:MobileNetV2", options=options, taps=("block_13_expand_relu",))
    assert (*backbone.taps[-1].size, backbone.taps[-1].channels) == (5, 5, 1280)
    assert next(t.channels for t in backbone.taps if t.name == "block_13_expand_relu") == 576
    _, path = timm_network("mobilenetv2_100", 160, tmp_path)
    found = backbones.load("timm:mobilenetv2_100", options=InputOptions(weights=str(path), size=(160, 160)))
    assert (*found.taps[-1].size, found.taps[-1].channels) == (5, 5, 1280)


def half_of(path, target):
    """A copy of a Keras file whose matrices are rounded to fp16, as those of the shared timm file are."""
    import h5py

    target.write_bytes(path.read_bytes())

    def round_it(_, item):
        if isinstance(item, h5py.Dataset) and item.ndim == 4:
            item[...] = item[...].astype(np.float16)

    with h5py.File(target, "r+") as file:
        file.visititems(round_it)
    return target


def test_three_ways_to_one_network(shared, tmp_path):
    """The same features of real pictures, and the same classifier, from timm, Keras and ONNX.

    The shared Keras file holds fp32 matrices, the others their fp16 rounding, which alone moves this network's
    features by 2%: rounded alike they agree.
    """
    weights, alike = shared / "weights", {"crop": 0.875, "resize": "shortest", "interpolation": "bilinear"}
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    keras_file = half_of(weights / "mobilenetv2-imagenet.weights.h5", tmp_path / "half.weights.h5")
    ways = {
        "timm:mobilenetv2_100?pad_type=same&num_classes=1001":
            InputOptions(weights=str(weights / "mobilenetv2-imagenet.safetensors"), **half, **alike),
        "keras:MobileNetV2": InputOptions(weights=str(keras_file), **alike),
        f"onnx:{weights / 'mobilenetv2-imagenet.onnx'}": InputOptions(**half, **alike),
    }  # fmt: skip
    from headstart import ImageClassifier
    from headstart.images import decode

    files = sorted((shared / "data" / "horse-or-human" / "validation").rglob("*.jp*g"))[::32]
    features, answers = [], []
    for name, options in ways.items():
        backbone = backbones.load(name, options=options)
        pixels = np.stack([backbone.preprocess(decode(file.read_bytes())) for file in files])
        features.append(served(backbone, pixels)["features"])
        fitted = ImageClassifier(name, cut="features", input_options=options, runtime="onnxruntime")
        fitted.fit(shared / "data" / "horse-or-human")
        answers.append(fitted.accuracy_["validation"].to_dict())
    for other in features[1:]:
        assert np.linalg.norm(other - features[0]) < 1e-3 * np.linalg.norm(features[0])
        np.testing.assert_allclose(other, features[0], atol=1e-3 * np.abs(features[0]).max())
    assert answers[0] == answers[1] == answers[2]


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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, first.sha256), done.stderr
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    assert backbones.load("timm:mobilenetv3_small_050", options=options).graph != first.graph


def test_the_networks_own_description_is_kept(tmp_path):
    _, path = timm_network("mobilenetv3_small_050", 64, tmp_path)
    backbone = backbones.load("timm:mobilenetv3_small_050", options=InputOptions(weights=str(path), size=(64, 64)))
    assert backbone.preprocess.to_dict() == {
        "height": 64, "width": 64, "resize": "shortest", "crop": 0.875, "interpolation": "bicubic"
    }  # fmt: skip
    assert "weights.safetensors (sha256 " in backbone.source


class Opens:
    """A pickle that would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_state_dicts_that_do_not_fit_say_so_in_one_line(tmp_path, monkeypatch):
    import torch

    network, path = timm_network("mobilenetv3_small_050", 64, tmp_path)
    state = network.state_dict()

    def told(change, name="mobilenetv3_small_050"):
        torch.save(change, tmp_path / "w.pth")
        with pytest.raises(HeadstartError) as caught:
            backbones.load(f"timm:{name}", options=InputOptions(weights=str(tmp_path / "w.pth"), size=(64, 64)))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    first = "conv_stem.weight"
    assert f"it lacks {first}" in told({k: v for k, v in state.items() if k != first})
    assert f"{first} is (3,) where (16, 3, 3, 3) is expected" in told({**state, first: torch.zeros(3)})
    assert "the model has no spare.weight" in told({**state, "spare.weight": torch.zeros(3)})
    assert "no tensor" in told({**state, first: 3})
    assert "no state dict" in told([1, 2])
    assert "does not fit" in told(state, "mobilenetv3_small_075")
    assert "did you mean" in told(state, "mobilenetv3_smal_050")
    assert "cannot build" in told(state, "mobilenetv3_small_050?colour=red")
    assert "leave it out" in told(state, "mobilenetv3_small_050?checkpoint_path=/etc/passwd")
    assert "cannot be read as weights" in told(Opens(tmp_path / "opened"))
    assert not (tmp_path / "opened").exists()
    monkeypatch.setattr("headstart.backbones.timm_zoo.MAX_FILE", 1000)
    assert "limit of 1,000" in told(state)
    monkeypatch.undo()
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in state.items() if "classifier" not in k}}, tmp_path / "w.pth"
    )
    found = backbones.load(
        "timm:mobilenetv3_small_050", options=InputOptions(weights=str(tmp_path / "w.pth"), size=(64, 64))
    )
    plain = backbones.load("timm:mobilenetv3_small_050", options=InputOptions(weights=str(path), size=(64, 64)))
    assert found.sha256 == plain.sha256


def test_keras_files_that_lie_are_refused_in_one_line(tmp_path, monkeypatch):
    import h5py

    network = keras_network("MobileNet", 64, alpha=0.25)
    network.save_weights(tmp_path / "good.weights.h5")
    network.save(tmp_path / "good.keras")

    def told(path, name="MobileNet?alpha=0.25"):
        with pytest.raises(HeadstartError) as caught:
            backbones.load(f"keras:{name}", options=InputOptions(weights=str(path), size=(64, 64)))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def changed(name, change):
        (tmp_path / name).write_bytes((tmp_path / "good.weights.h5").read_bytes())
        with h5py.File(tmp_path / name, "r+") as file:
            change(file)
        return tmp_path / name

    def lambda_inside(source, target):
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
            for entry in old.namelist():
                content = old.read(entry)
                if entry == "config.json":
                    config = json.loads(content)
                    config["config"]["layers"].append({"class_name": "Lambda", "config": {}})
                    content = json.dumps(config).encode()
                new.writestr(entry, content)
        return target

    assert "does not fit keras:MobileNet" in told(changed("less.weights.h5", lambda f: f["layers"].pop("conv2d")))
    outside = changed("out.weights.h5", lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")))
    assert "refused" in told(outside)
    far = changed("far.weights.h5", lambda f: f.create_dataset("x", (4,), "f4", external=[("/etc/passwd", 0, 16)]))
    assert "outside itself" in told(far)
    bomb = changed("bomb.weights.h5", lambda f: f.create_dataset("x", (2**40,), "f4", chunks=True))
    assert "limit" in told(bomb)
    assert "Lambda" in told(lambda_inside(tmp_path / "good.keras", tmp_path / "code.keras"))
    (tmp_path / "text.h5").write_text("no weights")
    assert "cannot be read as HDF5" in told(tmp_path / "text.h5")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as packed:
        packed.writestr("config.json", "{}")
    assert "no .keras file" in told(tmp_path / "empty.keras")
    assert "did you mean MobileNet" in told(tmp_path / "good.keras", "MobileNett")
    assert "leave it out" in told(tmp_path / "good.keras", "MobileNet?weights=imagenet")
    assert "cannot be built" in told(tmp_path / "good.keras", "MobileNet?depth=many")
    assert "does not fit" in told(tmp_path / "good.keras", "MobileNetV2")


@pytest.mark.parametrize("name", ["timm:mobilenetv2_100", "keras:MobileNetV2"])
def test_offline_it_says_what_to_do(name, tmp_path):
    closed = "http://127.0.0.1:9"
    variables = {
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "KERAS_HOME": str(tmp_path), "https_proxy": closed,
        "http_proxy": closed, "HEADSTART_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "backbones", "show", name],
        env={**os.environ, **variables}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"headstart: The weights of {name} are not in the cache")
    assert "--weights FILE" in done.stderr


def test_preprocessing_is_read_off_kerass_own_functions():
    from keras import applications

    from headstart.backbones.keras_zoo import scaling

    modes = {"resnet": "caffe", "resnet_v2": "tf", "densenet": "torch", "efficientnet": "none", "vgg16": "caffe"}
    for module, mode in modes.items():
        mean, std, channels = scaling(getattr(applications, module).preprocess_input)
        wanted = {
            "caffe": ([123.68 / 255, 116.779 / 255, 103.939 / 255], [1 / 255] * 3, "BGR"),
            "tf": ([0.5] * 3, [0.5] * 3, "RGB"),
            "torch": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "RGB"),
            "none": ([0] * 3, [1 / 255] * 3, "RGB"),
        }[mode]
        np.testing.assert_allclose(mean, wanted[0], atol=1e-5)
        np.testing.assert_allclose(std, wanted[1], rtol=1e-5)
        assert channels == wanted[2]
    with pytest.raises(BackboneError, match="no scaling"):
        scaling(lambda x, data_format: x @ np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))


def test_sizes_a_network_cannot_take(tmp_path):
    with pytest.raises(OptionError, match="cannot be built for 16 x 16"):
        backbones.load("keras:InceptionV3", options=InputOptions(size=(16, 16)))
    _, path = timm_network("vit_tiny_patch16_224", 224, tmp_path)
    with pytest.raises(BackboneError, match="8 x 8"):  # less than a patch
        backbones.load("timm:vit_tiny_patch16_224", options=InputOptions(weights=str(path), size=(8, 8)))
