"""Fine-tuning of Keras networks, compared with Keras itself. Runs where it is installed (``make zoo``)."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from helpers.finetuning import always_better, checkpoint_tensors, network_of
from helpers.frameworks import keras_network, needs, predict_in_new_process, served
from PIL import Image

import headstart as hs
from headstart.errors import BackboneError, MissingExtraError, OptionError
from headstart.finetune import FineTuneConfig, check_fine_tuning, fine_tune
from headstart.model.folder import write_model

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "keras", "h5py", "accelerate", "onnxscript")

SIZE = 64
BATCH_NORM_NAMES = {"gamma": "weight", "beta": "bias"}
NAME = "keras:MobileNetV2?alpha=0.35"


@pytest.fixture(scope="module")
def tinted(tmp_path_factory):
    """A dataset of red and blue images, which features of a random network separate."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("tinted")
    for split, count in (("train", 12), ("validation", 4)):
        for channel, name in ((0, "red"), (2, "blue")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.kron(rng.integers(0, 130, (8, 8, 3)), np.ones((8, 8, 1), int))
                pixels[..., channel] += rng.integers(20, 120)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


def fit_keras(data, tmp_path_factory, cut, **input_options):
    """A small MobileNetV2 of Keras with random weights, and a fit on it."""
    import torch

    torch.set_num_threads(1)
    model = keras_network("MobileNetV2", SIZE, alpha=0.35)
    weights = tmp_path_factory.mktemp("weights") / "w.weights.h5"
    model.save_weights(weights)
    options = hs.FitOptions(
        backbone=NAME,
        input_options=hs.InputOptions(weights=str(weights), size=(SIZE, SIZE), **input_options),
        cut=cut,
        compute=hs.Compute("onnxruntime"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        return model, hs.fit_dataset(hs.open_dataset(str(data)), options)


@pytest.fixture(scope="module")
def keras_fit(tinted, tmp_path_factory):
    # Random batch norms say nothing of how images are scaled: it is given, as Keras does it.
    return fit_keras(tinted, tmp_path_factory, "features", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def cut_fit(tinted, tmp_path_factory):
    """Cut in the middle, and with another normalisation of the images."""
    input_options = {"channels": "BGR", "mean": (0.2, 0.5, 0.6), "std": (0.3, 0.4, 0.5)}
    return fit_keras(tinted, tmp_path_factory, "block_12_add", **input_options)


def preprocess(pixels):
    """Keras's own preprocessing."""
    import keras

    return keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32))


@pytest.mark.parametrize("fixture", ["keras_fit", "cut_fit"])
def test_training_starts_as_the_frozen_model_at_every_tap(fixture, request):
    import torch

    _, result = request.getfixturevalue(fixture)
    network, golden = network_of(result), result.model.golden
    assert np.ptp(golden.probabilities[:, 0]) > 0.15
    assert network.check_start(golden.pixels, golden.probabilities) < 1e-4
    with pytest.raises(BackboneError, match="differs from the frozen model"):
        network.check_start(golden.pixels, golden.probabilities[::-1])
    expected = served(result.data.backbone, golden.pixels)
    network.head_taps = network.taps
    with torch.no_grad():
        vectors = network.vectors(torch.from_numpy(golden.pixels)).numpy()
    expected_vectors = np.hstack([expected[tap] for tap in network.taps])
    np.testing.assert_allclose(vectors, expected_vectors, atol=1e-4 * np.abs(vectors).max())


def test_layers_after_the_cut_are_not_trained(cut_fit):
    from headstart.finetune.freeze import make_plan

    network = network_of(cut_fit[1])
    assert "block_12_add" in network.taps
    plan = make_plan(network, FineTuneConfig(unfreeze_from="block_12_expand"))
    trained = {name.split(".")[2] for name in plan.lr_scales if name.startswith("body.")}
    parts = ("expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN")
    assert trained == {f"block_12_{part}" for part in parts}


def test_names_and_indices_of_layers_are_those_of_keras(keras_fit):
    from headstart.finetune.freeze import first_trained_layer, make_plan

    model, result = keras_fit
    network = network_of(result)
    assert [layer.name for layer in network.layers] == [layer.name for layer in model.layers]
    assert first_trained_layer(network, "100") == 100
    assert network.layers[first_trained_layer(network, "block_13_expand_relu")].name == "block_13_expand_relu"
    plan = make_plan(network, FineTuneConfig(unfreeze_from=100, batch_norm="update"))
    model.trainable = True  # the tutorial's second stage
    for layer in model.layers[:100]:
        layer.trainable = False
    expected = sorted(tuple(variable.shape) for variable in model.trainable_weights)
    tensors = network.state_dict()
    assert sorted(tuple(tensors[name].shape) for name in plan.lr_scales if name.startswith("body.")) == expected
    norms = [layer.name for layer in model.layers[100:] if type(layer).__name__ == "BatchNormalization"]
    assert [name.rpartition(".")[2] for name in plan.batch_norms] == norms
    for bad in ("block_99", 154):
        with pytest.raises(OptionError):
            first_trained_layer(network, bad)


def test_gradients_are_those_of_keras(keras_fit):
    import keras
    import torch

    model, result = keras_fit
    network, pixels, head = network_of(result), result.model.golden.pixels, result.selected.head
    labels = torch.arange(len(pixels)) % 2
    torch.nn.functional.cross_entropy(network(torch.from_numpy(pixels)), labels).backward()
    model.trainable = True
    outputs = [model.output if tap == "features" else model.get_layer(tap).output for tap in head.taps]
    maps = keras.Model(model.inputs, outputs)(preprocess(pixels), training=False)
    maps = maps if isinstance(maps, list) else [maps]
    vectors = torch.cat([value.mean((1, 2)) for value in maps], 1)
    scores = (vectors @ torch.from_numpy(head.weights) + torch.from_numpy(head.bias)) / head.temperature
    torch.nn.functional.cross_entropy(scores, labels).backward()
    parameters, compared = dict(network.named_parameters()), 0
    for layer in model.layers:
        for variable in layer.trainable_weights:
            name = BATCH_NORM_NAMES.get(variable.name, variable.name)
            actual = parameters[f"body.network.{layer.name}.{name}"].grad
            expected = variable.value.grad
            assert (actual is None) == (expected is None)
            if expected is not None:
                # fp32, and folded batch norms round otherwise: 1.01e-3 on these images.
                assert (actual - expected).norm() < 2e-3 * expected.norm()
                compared += 1
    assert compared > 100


def test_frozen_batch_norms_keep_their_statistics_and_the_others_follow_as_in_keras(keras_fit):
    import keras
    import torch

    from headstart.finetune.freeze import check_frozen, make_plan, set_mode

    _, result = keras_fit
    network, pixels = network_of(result), torch.from_numpy(result.model.golden.pixels)
    plan = make_plan(network, FineTuneConfig(unfreeze_from="block_16_project", batch_norm="update"))
    model, norm = network.body.keras[0], network.body.keras[0].get_layer("block_16_project_BN")
    set_mode(network, plan, training=True)
    with torch.no_grad():
        inputs = keras.Model(model.inputs, norm.input)(preprocess(pixels.numpy()), training=False)
        network(pixels)
    layer = network.body.network["block_16_project_BN"]
    before = plan.initial["body.network.block_16_project_BN.running_mean"]
    expected = norm.momentum * before + (1 - norm.momentum) * inputs.mean((0, 1, 2))
    np.testing.assert_allclose(layer.running_mean, expected, rtol=1e-5, atol=1e-7)
    assert (layer.running_mean != before).any()
    assert check_frozen(network, plan) > 100  # all others have not changed
    set_mode(network, plan, training=False)
    mean = layer.running_mean.clone()
    network(pixels)
    assert torch.equal(layer.running_mean, mean)
    statistic = network.body.network["bn_Conv1"].running_var
    statistic[0] = float(np.nextafter(np.float32(statistic[0]), np.float32(9)))  # one bit
    with pytest.raises(BackboneError, match=r"bn_Conv1\.running_var changed"):
        check_frozen(network, plan)


def test_a_fine_tuned_keras_network_predicts_without_keras_or_pytorch(keras_fit, tinted, tmp_path):
    from headstart.finetune.run import run

    _, frozen = keras_fit
    config = FineTuneConfig(epochs=2, learning_rate=1e-3, batch_size=8, unfreeze_from="block_13_expand_relu")
    tuned = run(frozen, config, lambda _: None, compare=always_better)
    assert tuned.model.backbone["sha256"] != frozen.data.backbone.sha256
    assert tuned.model.run["fine_tuning"]["unfrozen_from"] == "block_13_expand_relu"
    pixels = tuned.model.golden.pixels
    before, after = (served(result.data.backbone, pixels) for result in (frozen, tuned))
    assert before.keys() == after.keys()
    for tap in before:  # taps of frozen layers have the values they had
        is_equal = np.abs(before[tap] - after[tap]).max() < 1e-5 * np.abs(before[tap]).max()
        assert is_equal == (tap != "features"), tap
    folder = write_model(tuned.model, tmp_path / "m")
    alone = predict_in_new_process(folder, tinted / "validation", without=("torch", "keras"))
    here = hs.Predictor(tuned.model).predict(tinted / "validation").probabilities
    np.testing.assert_allclose(alone, here, atol=1e-6)


@pytest.mark.parametrize("batch_norm", ["frozen", "update"])
def test_an_interrupted_and_resumed_run_has_equal_weights(keras_fit, tmp_path, batch_norm):
    import torch

    from headstart.finetune.run import run
    from headstart.finetune.verdict import compare_to_frozen

    _, result = keras_fit
    held_out = []

    def compare(frozen, tuned, *arguments):
        held_out.append(tuned)
        return compare_to_frozen(frozen, tuned, *arguments)

    config = FineTuneConfig(epochs=2, batch_size=8, checkpoints=tmp_path / "a", batch_norm=batch_norm)
    run(result, config, lambda _: None, compare=compare)
    lines = []

    def interrupt(line):
        lines.append(line)
        if line.startswith("fold 2 of 3, epoch 1"):
            raise KeyboardInterrupt

    config = replace(config, checkpoints=tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(result, config, log=interrupt)
    run(result, replace(config, resume=True), lines.append, compare=compare)
    assert any("fold 2 of 3: continuing after epoch 1" in line for line in lines)
    np.testing.assert_array_equal(*held_out)
    uninterrupted, resumed = (checkpoint_tensors(tmp_path / folder) for folder in ("a", "b"))
    assert uninterrupted.keys() == resumed.keys()
    assert len(resumed) >= 3
    for name, tensors in uninterrupted.items():
        assert tensors.keys() == resumed[name].keys()
        assert any("running_mean" in key for key in tensors) == (batch_norm == "update")
        assert all(torch.equal(value, resumed[name][key]) for key, value in tensors.items())


def test_without_keras_the_error_says_what_to_install(monkeypatch):
    check_fine_tuning(NAME, FineTuneConfig())
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("headstart.finetune.find_spec", lambda name: None if name == "keras" else find_spec(name))
    check_fine_tuning("headstart-s", FineTuneConfig())
    with pytest.raises(MissingExtraError, match=r"headstart\[torch,keras\]"):
        check_fine_tuning(NAME, FineTuneConfig())
