"""keras: against Keras on PyTorch. Runs where it is installed (``make zoo``)."""

import numpy as np
import onnx
import pytest
from helpers.frameworks import assert_close, blobs, keras_network, keras_values, legacy_file, needs, served

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.errors import BackboneError
from headstart.heads.kinds import Targets
from headstart.heads.mlp import MlpConfig, train

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "keras", "h5py", "onnxscript")

SIZES = {
    "VGG16": 64,
    "VGG19": 48,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "InceptionV3": 96,
    "DenseNet121": 64,
    "MobileNet": 64,
    "MobileNetV2": 96,
    "MobileNetV3Small": 64,
    "MobileNetV3Large": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 96,
    "ConvNeXtTiny": 64,
    "DenseNet169": 64,
    "Xception": 96,
    "NASNetMobile": 96,
}


@pytest.mark.parametrize("name", SIZES)
def test_prepared_networks_give_what_keras_gives(name, tmp_path):
    size = SIZES[name]
    network = keras_network(name, size)
    path = tmp_path / "w.weights.h5"
    network.save_weights(path)
    backbone = backbones.load(f"keras:{name}", options=InputOptions(weights=str(path), size=(size, size)))
    pixels = blobs(size)
    values = served(backbone, pixels)
    assert backbone.batch is None
    assert len(backbone.taps) >= 3
    for tap in backbone.taps:
        layer = network.layers[-1].name if tap.name == "features" else tap.name
        assert_close(values[tap.name], keras_values(name, network, pixels, layer))
        height, width, channels = network.get_layer(layer).output.shape[1:]
        assert (tap.size, tap.channels) == ((height, width), channels)
    operators = [node.op_type for node in onnx.load(backbone.graph).graph.node]
    # These pad with zeros before a maximum of values of either sign, and NASNet where it crops one side.
    assert "Pad" not in operators or name in ("ResNet50V2", "NASNetMobile")
    if name != "ConvNeXtTiny":  # its norms are over the channels of each pixel
        assert operators.count("Transpose") == 1


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """InceptionV3 at 150 as in the lesson: the framework's network, and a legacy file of its weights."""
    network = keras_network("InceptionV3", 150)
    path = tmp_path_factory.mktemp("lesson") / "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return network, legacy_file(network, path)


def test_inception_cut_at_mixed7_as_in_the_lesson(inception):
    network, path = inception
    options = InputOptions(weights=str(path), size=(150, 150))
    backbone = backbones.load("keras:InceptionV3", options=options, taps=("mixed7",))
    assert [tap.name for tap in backbones.load("keras:InceptionV3", options=options).taps][-3:] == [
        "mixed2",
        "mixed7",  # which is found, not only where it is named
        "features",
    ]
    tap = next(tap for tap in backbone.taps if tap.name == "mixed7")
    assert (*tap.size, tap.channels) == (7, 7, 768)
    pixels = blobs(150)
    assert_close(served(backbone, pixels)["mixed7"], keras_values("InceptionV3", network, pixels, "mixed7"))
    with pytest.raises(BackboneError, match=r"Unknown cut 'mixed77'.*mixed7"):
        backbones.load("keras:InceptionV3", options=options, taps=("mixed77",))


def test_the_lessons_whole_model_has_its_parameters(inception):
    """47,512,481, of which 38,537,217 are trained: Keras' own count, and that of our graph and our head."""
    import keras

    network, path = inception
    cut = keras.Model(network.inputs, network.get_layer("mixed7").output)
    assert cut.count_params() == 8_975_264
    cut.trainable = False
    head = [
        keras.layers.Flatten(),
        keras.layers.Dense(1024, "relu"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(1, "sigmoid"),
    ]
    lesson = keras.Sequential([cut, *head])
    assert lesson.count_params() == 47_512_481
    assert sum(int(np.prod(variable.shape)) for variable in lesson.trainable_variables) == 38_537_217

    options = InputOptions(weights=str(path), size=(150, 150))
    backbone = backbones.load("keras:InceptionV3", options=options, taps=("mixed7/flat",))
    graph = backbones.cut(backbone, ["mixed7/flat"]).graph
    kernels = [weight.shape for weight in cut.weights if len(weight.shape) == 4]  # batch norms are folded into these
    used = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    shapes = [tuple(tensor.dims) for tensor in graph.initializer if tensor.name in used]
    assert sorted(shapes) == sorted((out, inner, height, width) for height, width, inner, out in kernels)

    values = served(backbone, blobs(150, 2))["mixed7/flat"]
    _, layers = next(iter(train(values, Targets(np.array([0, 1]), 2, np.array([0, 1])), MlpConfig(epochs=1), seed=0)))
    ours = layers()
    assert not ours.weights[:, 0].any()  # one sigmoid: the first class has no numbers of its own
    trained = ours.hidden_weights.size + ours.hidden_bias.size + ours.weights[:, 1].size + 1
    assert cut.count_params() + trained == 47_512_481


def test_legacy_files_that_do_not_fit_say_what_is_missing(inception):
    _, path = inception
    with pytest.raises(BackboneError, match=r"does not fit keras:Xception: .* is \(.*\), the file has"):
        backbones.load("keras:Xception", options=InputOptions(weights=str(path), size=(96, 96)))


def test_scaling_is_measured_on_kerass_own_functions():
    from keras import applications

    from headstart.backbones.providers.keras import scaling

    modes = {"resnet": "caffe", "resnet_v2": "tf", "densenet": "torch", "efficientnet": "none", "vgg16": "caffe"}
    expected = {
        "caffe": ([123.68 / 255, 116.779 / 255, 103.939 / 255], [1 / 255] * 3, "BGR"),
        "tf": ([0.5] * 3, [0.5] * 3, "RGB"),
        "torch": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "RGB"),
        "none": ([0] * 3, [1 / 255] * 3, "RGB"),
    }
    for module, mode in modes.items():
        mean, std, channels = scaling(getattr(applications, module).preprocess_input)
        np.testing.assert_allclose(mean, expected[mode][0], atol=1e-5)
        np.testing.assert_allclose(std, expected[mode][1], rtol=1e-5)
        assert channels == expected[mode][2]
    with pytest.raises(BackboneError, match="does not scale each channel by itself"):
        scaling(lambda x, data_format: x @ np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]))
