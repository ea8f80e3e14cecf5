"""keras: against Keras on PyTorch. Runs where it is installed (``make zoo``)."""

import json
import zipfile

import numpy as np
import onnx
import pytest
from helpers.frameworks import assert_same, keras_network, keras_values, legacy_file, needs, pictures, served

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.errors import BackboneError, HeadstartError
from headstart.heads import Training
from headstart.heads.mlp import train

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "keras", "h5py", "onnxscript")

KERAS = {
    "VGG16": 64, "VGG19": 48, "ResNet50": 64, "ResNet50V2": 64, "InceptionV3": 96, "DenseNet121": 64, "MobileNet": 64,
    "MobileNetV2": 96, "MobileNetV3Small": 64, "MobileNetV3Large": 64, "EfficientNetB0": 64, "EfficientNetV2B0": 96,
    "ConvNeXtTiny": 64, "DenseNet169": 64, "Xception": 96, "NASNetMobile": 96,
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_keras_networks_equal_themselves(name, tmp_path):
    size = KERAS[name]
    network = keras_network(name, size)
    path = tmp_path / "w.weights.h5"
    network.save_weights(path)
    backbone = backbones.load(f"keras:{name}", options=InputOptions(weights=str(path), size=(size, size)))
    pixels = pictures(size)
    found = served(backbone, pixels)
    assert backbone.batch is None
    assert len(backbone.taps) >= 3
    for tap in backbone.taps:
        layer = network.layers[-1].name if tap.name == "features" else tap.name
        assert_same(found[tap.name], keras_values(name, network, pixels, layer))
        height, width, channels = network.get_layer(layer).output.shape[1:]
        assert (tap.size, tap.channels) == ((height, width), channels)
    kinds = [node.op_type for node in onnx.load(backbone.graph).graph.node]
    # These pad with zeros before a maximum of values of either sign, and NASNet where it crops one side.
    assert "Pad" not in kinds or name in ("ResNet50V2", "NASNetMobile")
    if name != "ConvNeXtTiny":  # its norms are over the channels of each pixel
        assert kinds.count("Transpose") == 1


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """InceptionV3 at 150 as in the lesson, its framework's and a legacy file of its weights."""
    network = keras_network("InceptionV3", 150)
    path = tmp_path_factory.mktemp("lesson") / "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return network, legacy_file(network, path)


def test_the_lesson(inception):
    network, path = inception
    options = InputOptions(weights=str(path), size=(150, 150))
    backbone = backbones.load("keras:InceptionV3", options=options, taps=("mixed7",))
    tap = next(tap for tap in backbone.taps if tap.name == "mixed7")
    assert (*tap.size, tap.channels) == (7, 7, 768)
    pixels = pictures(150)
    assert_same(served(backbone, pixels)["mixed7"], keras_values("InceptionV3", network, pixels, "mixed7"))
    with pytest.raises(BackboneError, match=r"Unknown cut 'mixed77'.*mixed7"):
        backbones.load("keras:InceptionV3", options=options, taps=("mixed77",))


def test_the_lessons_whole_model_has_its_parameters(inception):
    """47,512,481, of which 38,537,217 are trained: Keras' own count, and that of our graph and our head."""
    import keras

    network, path = inception
    cut = keras.Model(network.inputs, network.get_layer("mixed7").output)
    assert cut.count_params() == 8_975_264
    cut.trainable = False
    lesson = keras.Sequential([cut, *(getattr(keras.layers, kind)(*how) for kind, how in (
        ("Flatten", ()), ("Dense", (1024, "relu")), ("Dropout", (0.2,)), ("Dense", (1, "sigmoid")),
    ))])  # fmt: skip
    assert lesson.count_params() == 47_512_481
    assert sum(int(np.prod(variable.shape)) for variable in lesson.trainable_variables) == 38_537_217

    options = InputOptions(weights=str(path), size=(150, 150))
    backbone = backbones.load("keras:InceptionV3", options=options, taps=("mixed7/flat",))
    graph = backbones.cut(backbone, ["mixed7/flat"]).graph
    kernels = [weight.shape for weight in cut.weights if len(weight.shape) == 4]  # batch norms are folded into these
    used = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    ours = [tuple(tensor.dims) for tensor in graph.initializer if tensor.name in used]
    assert sorted(ours) == sorted((out, inner, height, width) for height, width, inner, out in kernels)

    values = served(backbone, pictures(150, 2))["mixed7/flat"]
    _, layers = next(iter(train(values, np.array([0, 1]), 2, Training(epochs=1), seed=0)))
    head = layers()
    assert not head.weights[:, 0].any()  # one sigmoid: the first class has no numbers of its own
    trained = head.hidden.size + head.offset.size + head.weights[:, 1].size + 1
    assert cut.count_params() + trained == 47_512_481


def test_legacy_files_that_do_not_fit_say_what_is_missing(inception):
    _, path = inception
    with pytest.raises(BackboneError, match=r"does not fit keras:Xception: .* is \(.*\), the file has"):
        backbones.load("keras:Xception", options=InputOptions(weights=str(path), size=(96, 96)))


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


def test_preprocessing_is_read_off_kerass_own_functions():
    from keras import applications

    from headstart.backbones.providers.keras import scaling

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
