"""Fine-tuning of Keras' networks, each statement against Keras itself. Runs where it is installed (``make zoo``)."""

import copy
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from helpers.frameworks import answers_alone, keras_network, needs, served
from PIL import Image

import headstart as hs
from headstart.errors import BackboneError, MissingExtraError, OptionError
from headstart.finetune import FineTuning, check_backbone, fine_tune

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "keras", "h5py", "accelerate", "onnxscript")

SIZE = 64
NORM = {"gamma": "weight", "beta": "bias"}
NAME = "keras:MobileNetV2?alpha=0.35"


def keras_fit(pictures, folder, cut="auto", **more):
    """A small MobileNetV2 of Keras with random weights, and a classifier on it."""
    import torch

    torch.set_num_threads(1)
    own = keras_network("MobileNetV2", SIZE, alpha=0.35)
    own.save_weights(folder / "w.weights.h5")
    options = hs.InputOptions(weights=str(folder / "w.weights.h5"), size=(SIZE, SIZE), **more)
    return own, hs.ImageClassifier(NAME, input_options=options, cut=cut, runtime="onnxruntime").fit(pictures)


@pytest.fixture(scope="module")
def tinted(tmp_path_factory):
    """Red and blue pictures, which even a random network tells apart."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("tinted")
    for split, count in (("train", 12), ("validation", 4)):
        for channel, name in ((0, "red"), (2, "blue")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.kron(rng.integers(0, 130, (8, 8, 3)), np.ones((8, 8, 1), int))
                pixels[..., channel] += rng.integers(20, 120)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


def made(pictures, factory, **more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(factory.mktemp("c")))
        return keras_fit(pictures, factory.mktemp("w"), **more)


@pytest.fixture(scope="module")
def known(tinted, tmp_path_factory):
    return made(tinted, tmp_path_factory, cut="features")


@pytest.fixture(scope="module")
def unusual(tinted, tmp_path_factory):
    """Cut in the middle, and of pictures that are scaled otherwise."""
    more = {"channels": "BGR", "mean": (0.2, 0.5, 0.6), "std": (0.3, 0.4, 0.5)}
    return made(tinted, tmp_path_factory, cut="block_12_add", **more)


def network_of(fitted):
    from headstart.finetune.network import Network

    return Network(fitted.learned_.backbone, fitted.input_options, fitted.choice_.head)


def scaled(pixels):
    """Keras' own preprocessing."""
    import keras

    return keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32))


@pytest.mark.parametrize("which", ["known", "unusual"])
def test_epoch_0_is_the_frozen_model_at_every_tap(which, request):
    import torch

    _, fitted = request.getfixturevalue(which)
    network, golden = network_of(fitted), fitted.model_.golden
    assert np.ptp(golden.probabilities[:, 0]) > 0.3
    assert network.check_start(golden.pixels, golden.probabilities) < 1e-4
    with pytest.raises(BackboneError, match="differs from the frozen model"):
        network.check_start(golden.pixels, golden.probabilities[::-1])
    wanted = served(fitted.learned_.backbone, golden.pixels)
    network.wanted = network.taps
    with torch.no_grad():
        found = network.vectors(torch.from_numpy(golden.pixels)).numpy()
    np.testing.assert_allclose(found, np.hstack([wanted[tap] for tap in network.taps]), atol=1e-4 * np.abs(found).max())


def test_what_comes_after_the_cut_is_not_trained(unusual):
    from headstart.finetune.freeze import plan

    network = network_of(unusual[1])
    assert "block_12_add" in network.taps
    chosen = plan(network, FineTuning(unfreeze_from="block_12_expand"))
    free = {name.split(".")[2] for name in chosen.free if name.startswith("body.")}
    parts = ("expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN")
    assert free == {f"block_12_{part}" for part in parts}


def test_names_and_numbers_mean_what_they_do_in_keras(known):
    from headstart.finetune.freeze import first_free, plan

    own, fitted = known
    network = network_of(fitted)
    assert [layer.name for layer in network.layers] == [layer.name for layer in own.layers]
    assert first_free(network, "100") == 100
    assert network.layers[first_free(network, "block_13_expand_relu")].name == "block_13_expand_relu"
    chosen = plan(network, FineTuning(unfreeze_from=100, batch_norm="update"))
    own.trainable = True  # the tutorial's second stage
    for layer in own.layers[:100]:
        layer.trainable = False
    wanted = sorted(tuple(variable.shape) for variable in own.trainable_weights)
    present = network.state_dict()
    found = sorted(tuple(present[name].shape) for name in chosen.free if name.startswith("body."))
    assert found == wanted
    norms = [layer.name for layer in own.layers[100:] if type(layer).__name__ == "BatchNormalization"]
    assert [name.rpartition(".")[2] for name in chosen.norms] == norms
    for bad in ("block_99", 154):
        with pytest.raises(OptionError):
            first_free(network, bad)


def test_gradients_are_those_of_keras_itself(known):
    import keras
    import torch

    own, fitted = known
    network, pixels, head = network_of(fitted), fitted.model_.golden.pixels, fitted.choice_.head
    truth = torch.arange(len(pixels)) % 2
    torch.nn.functional.cross_entropy(network(torch.from_numpy(pixels)), truth).backward()
    own.trainable = True
    taps = keras.Model(own.inputs, [own.output if t == "features" else own.get_layer(t).output for t in head.taps])
    maps = taps(scaled(pixels), training=False)
    vectors = torch.cat([each.mean((1, 2)) for each in (maps if isinstance(maps, list) else [maps])], 1)
    scores = (vectors @ torch.from_numpy(head.weights) + torch.from_numpy(head.bias)) / head.temperature
    torch.nn.functional.cross_entropy(scores, truth).backward()
    named, compared = dict(network.named_parameters()), 0
    for layer in own.layers:
        for variable in layer.trainable_weights:
            mine = named[f"body.network.{layer.name}.{NORM.get(variable.name, variable.name)}"].grad
            wanted = variable.value.grad
            assert (mine is None) == (wanted is None)
            if wanted is not None:
                assert (mine - wanted).norm() < 1e-3 * wanted.norm()
                compared += 1
    assert compared > 100


def test_frozen_norms_keep_their_statistics_and_the_others_follow_as_keras_does(known):
    import keras
    import torch

    from headstart.finetune.freeze import check_frozen, plan, set_mode

    _, fitted = known
    network, pixels = network_of(fitted), torch.from_numpy(fitted.model_.golden.pixels)
    chosen = plan(network, FineTuning(unfreeze_from="block_16_project", batch_norm="update"))
    model, norm = network.body.keras[0], network.body.keras[0].get_layer("block_16_project_BN")
    set_mode(network, chosen, learning=True)
    with torch.no_grad():
        below = keras.Model(model.inputs, norm.input)
        seen = below(scaled(pixels.numpy()), training=False)
        network(pixels)
    now = network.body.network["block_16_project_BN"]
    before = chosen.start["body.network.block_16_project_BN.running_mean"]
    wanted = norm.momentum * before + (1 - norm.momentum) * seen.mean((0, 1, 2))
    np.testing.assert_allclose(now.running_mean, wanted, rtol=1e-5, atol=1e-7)
    assert (now.running_mean != before).any()
    assert check_frozen(network, chosen) > 100  # all others are as they were
    set_mode(network, chosen, learning=False)
    kept = now.running_mean.clone()
    network(pixels)
    assert torch.equal(now.running_mean, kept)
    statistic = network.body.network["bn_Conv1"].running_var
    statistic[0] = float(np.nextafter(np.float32(statistic[0]), np.float32(9)))  # one bit
    with pytest.raises(BackboneError, match=r"bn_Conv1\.running_var changed"):
        check_frozen(network, chosen)


def test_a_fine_tuned_keras_network_answers_without_keras_or_pytorch(known, tinted, tmp_path, monkeypatch):
    from headstart.finetune.verdict import Verdict

    monkeypatch.setattr(Verdict, "better", property(lambda self: True))
    fitted = copy.copy(known[1])
    fitted.learned_ = known[1].learned_
    before = fitted.learned_.backbone
    fine_tune(fitted, FineTuning(epochs=2, rate=1e-3, batch=8, unfreeze_from="block_13_expand_relu"))
    assert fitted.model_.backbone["sha256"] != before.sha256
    assert fitted.run_["fine_tuning"]["unfrozen_from"] == "block_13_expand_relu"
    pixels = fitted.model_.golden.pixels
    old, new = (served(backbone, pixels) for backbone in (before, fitted.learned_.backbone))
    assert old.keys() == new.keys()
    for tap in old:  # what is frozen gives what it gave
        same = np.abs(old[tap] - new[tap]).max() < 1e-5 * np.abs(old[tap]).max()
        assert same == (tap != "features"), tap
    fitted.save(tmp_path / "m")
    alone = answers_alone(tmp_path / "m", tinted / "validation", without=("torch", "keras"))
    np.testing.assert_allclose(alone, fitted.predict_proba(tinted / "validation"), atol=1e-6)


@pytest.mark.parametrize("batch_norm", ["frozen", "update"])
def test_stopped_and_resumed_the_weights_are_equal(known, tmp_path, monkeypatch, batch_norm):
    import torch

    from headstart.finetune import run as tune

    _, fitted = known
    real, kept = tune._training, []

    def training(*arguments):
        found = real(*arguments)
        kept.append(found[1])
        return found

    monkeypatch.setattr(tune, "_training", training)
    how = FineTuning(epochs=2, batch=8, checkpoints=tmp_path / "a", batch_norm=batch_norm)
    fine_tune(fitted, how)
    whole, lines = list(kept), []
    kept.clear()

    def stop(line):
        lines.append(line)
        if line.startswith("fold 2 of 3, epoch 1"):
            raise KeyboardInterrupt

    how = replace(how, checkpoints=tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(fitted, how, say=stop)
    kept.clear()
    fine_tune(fitted, replace(how, resume=True), say=lines.append)
    assert any("fold 2 of 3: going on after epoch 1" in line for line in lines)
    assert len(whole) == len(kept) >= 3
    for one, other in zip(whole, kept, strict=True):
        assert one.keys() == other.keys()
        assert any("running_mean" in name for name in one) == (batch_norm == "update")
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_keras_the_error_says_what_to_install(monkeypatch):
    check_backbone(NAME)
    there = importlib.util.find_spec
    monkeypatch.setattr("headstart.finetune.find_spec", lambda name: None if name == "keras" else there(name))
    check_backbone("headstart-s")
    with pytest.raises(MissingExtraError, match=r"headstart\[zoo,keras\]"):
        check_backbone(NAME)


def test_a_batch_norm_without_a_scale_follows_as_soon_as_its_shift_learns():
    from headstart.finetune.freeze import Plan

    free, depth = {"a.bias": 1.0, "b.weight": 1.0}, {"a.bias": 1, "b.weight": 0}
    plan = Plan(free, depth, {}, ("a", "b"), "a")
    assert [plan.at(epoch).norms for epoch in (1, 2)] == [("b",), ("a", "b")]
