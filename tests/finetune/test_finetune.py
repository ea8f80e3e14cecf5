"""Fine-tuning. What needs PyTorch is marked zoo and runs where it is installed (``make zoo``)."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.frameworks import answers_alone, marked
from helpers.photos import ROOT

import headstart as hs
from headstart.errors import BackboneError, HeadstartError, MissingExtraError, ModelError, OptionError
from headstart.finetune import FineTuning, check_backbone, fine_tune, parse
from headstart.finetune.options import TUNING
from headstart.finetune.schedule import rate_at
from headstart.finetune.verdict import ALPHAS, folds, judge

torch_test = marked("torch", "timm", "accelerate", "onnxscript")


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0}, {"epochs": 1.5}, {"batch": 0}, {"rate": 0}, {"rate": float("nan")}, {"layer_decay": 0},
        {"layer_decay": 1.1}, {"warm_up": -0.1}, {"l2_sp": 2}, {"ema": 1}, {"label_smoothing": 1}, {"clip": -1},
        {"optimiser": "lion"}, {"augmentation": "heavy"}, {"batch_norm": "on"}, {"patience": 0},
        {"stop_at_accuracy": 1.1}, {"time_limit": 0}, {"resume": True},
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_say_so_in_one_line(bad):
    with pytest.raises(OptionError) as caught:
        FineTuning(**bad)
    assert "\n" not in str(caught.value)


def test_tuning_is_read_by_name():
    assert parse("ema=0.9, clip=2") == {"ema": 0.9, "clip": 2.0}
    for bad in ("ema", "ema=x", "checkpoints=1", "class_weights=1", "epochs=2"):
        with pytest.raises(OptionError, match="cannot be read"):
            parse(bad)


def test_event_files_without_tensorboard_name_what_to_install(monkeypatch):
    monkeypatch.setattr("headstart.finetune.options.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install"):
        FineTuning(tensorboard=Path("board"))
    assert FineTuning().to_dict().keys().isdisjoint({"tensorboard", "checkpoints", "resume"})


def test_every_option_stands_in_the_documents_table():
    from typer.main import get_command

    from headstart.cli import app

    page = (ROOT / "docs" / "fine-tuning.md").read_text("utf-8")
    cells = {word for row in re.findall(r"^\|([^|]*)\|", page, re.M) for word in re.findall(r"`([^`]+)`", row)}
    fit = get_command(app).commands["fit"]
    said = {each.opts[0] for each in fit.params if "ine-tuning" in (getattr(each, "help", None) or "")}
    assert {"--gradual", "--epochs", "--precision", "--tensorboard"} <= said
    assert not {*said, *TUNING} - cells - {"--fine-tune"}


def test_finished_graphs_are_refused_with_what_to_use_instead():
    with pytest.raises(BackboneError, match="use the same network as timm:NAME"):
        check_backbone("onnx:net.onnx")


def test_the_command_refuses_options_of_fine_tuning_without_it(tmp_path):
    from typer.testing import CliRunner

    from headstart.cli.options import app

    done = CliRunner().invoke(app, ["fit", str(tmp_path), "-o", str(tmp_path / "m"), "--layer-decay", "0.5"])
    assert isinstance(done.exception, OptionError)
    assert "--layer-decay is of fine-tuning" in str(done.exception)


def test_the_rate_rises_and_falls():
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert np.argmax(rates) in (9, 10)
    assert max(rates) == 1
    assert rates[0] == 0.1
    assert rates[-1] < 1e-3
    assert all(np.diff(rates[10:]) < 0)


def test_folds_keep_groups_whole_and_every_class():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 20, 90)
    labels = groups % 3
    for rows, held in folds(labels, groups, 0):
        assert not set(groups[rows]) & set(groups[held])
        assert set(labels[rows]) == {0, 1, 2}
        assert sorted([*rows, *held]) == list(range(90))
    assert folds(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 0) is None


def scores_of(right, labels, rng):
    """Scores of two classes that are right where ``right`` says."""
    answer = np.where(right, labels, 1 - labels)
    return np.eye(2)[answer] * 4 + rng.normal(0, 0.1, (len(labels), 2))


def test_chance_keeps_the_frozen_model_and_a_real_gain_does_not():
    rng = np.random.default_rng(1)
    n = 200
    labels, groups, fold = np.arange(n) % 2, np.arange(n), np.arange(n) % 3
    right = rng.random(n) < 0.8
    frozen = scores_of(right, labels, rng)
    same = np.stack([scores_of(right ^ (np.arange(n) == i), labels, rng) for i in range(len(ALPHAS))])
    found = judge(frozen, same, labels, groups, fold)
    assert not found.better
    assert "the frozen model is kept" in str(found)
    better = same.copy()
    better[2] = scores_of(rng.random(n) < 0.97, labels, rng)
    found = judge(frozen, better, labels, groups, fold)
    assert found.better
    assert (found.alpha, found.alphas) == (ALPHAS[2], (ALPHAS[2],) * 3)
    assert found.frozen == right.mean()
    worse = np.stack([scores_of(rng.random(n) < 0.5, labels, rng)] * len(ALPHAS))
    assert not judge(frozen, worse, labels, groups, fold).better  # real, but the other way


@pytest.fixture(scope="module")
def fitted_s(photos, tmp_path_factory):
    os.environ["HEADSTART_CACHE"] = str(tmp_path_factory.mktemp("c"))
    return hs.ImageClassifier(runtime="onnxruntime").fit(photos)


def timm_fit(photos, folder):
    from test_zoo import timm_network

    _, path = timm_network("resnet10t", 64, folder)
    options = hs.InputOptions(weights=str(path), size=(64, 64))
    return hs.ImageClassifier("timm:resnet10t", input_options=options, runtime="onnxruntime").fit(photos)


def network_of(fitted):
    import torch

    from headstart.finetune.network import Network

    torch.set_num_threads(1)
    return Network(fitted.learned_.backbone, fitted.input_options, fitted.choice_.head)


@torch_test
def test_the_built_in_graph_in_torch_equals_onnxruntime_at_every_tap(fitted_s):
    import onnxruntime
    import torch

    network = network_of(fitted_s)
    pixels = fitted_s.model_.golden.pixels
    session = onnxruntime.InferenceSession(fitted_s.learned_.backbone.graph, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"pixels": pixels})
    with torch.no_grad():
        found = network.body(torch.from_numpy(pixels))
    for one, other in zip(found, wanted, strict=True):
        assert np.linalg.norm(one.numpy() - other) < 1e-4 * np.linalg.norm(other)
    exported = network.export()
    session = onnxruntime.InferenceSession(exported.graph, providers=["CPUExecutionProvider"])
    for one, other in zip(session.run(None, {"pixels": pixels}), wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@torch_test
def test_epoch_0_is_the_frozen_model(fitted_s, photos, tmp_path):
    for fitted in (fitted_s, timm_fit(photos, tmp_path)):
        golden = fitted.model_.golden
        assert network_of(fitted).check_start(golden.pixels, golden.probabilities) < 1e-4
        with pytest.raises(BackboneError, match="differs from the frozen model"):
            network_of(fitted).check_start(golden.pixels, golden.probabilities[::-1])


@torch_test
def test_what_is_free_and_what_is_not(photos, tmp_path):
    from headstart.finetune.freeze import check_frozen, first_free, plan

    network = network_of(timm_fit(photos, tmp_path))
    names = [layer.name for layer in network.layers]
    assert names[0].startswith("conv1")
    assert first_free(network, "all") == first_free(network, 0) == 0
    first = first_free(network, "layer3")
    assert names[first].startswith("layer3.")
    assert not names[first - 1].startswith("layer3.")
    chosen = plan(network, FineTuning(unfreeze_from="layer3", layer_decay=0.5))
    backbone = [name for name in chosen.free if name.startswith("body.")]
    assert all(name.startswith(("body.network.layer3", "body.network.layer4")) for name in backbone)
    assert {p.requires_grad for n, p in network.named_parameters() if "layer2" in n} == {False}
    assert chosen.free["head.bias"] == 1.0
    for bad in ("layer9", 10_000):
        with pytest.raises(OptionError):
            first_free(network, bad)
    assert check_frozen(network, chosen) > 10
    statistic = dict(network.named_buffers())["body.network.layer4.0.bn1.running_mean"]
    statistic[0] = float(np.nextafter(np.float32(statistic[0]), np.float32(9)))  # one bit
    with pytest.raises(BackboneError, match=r"layer4\.0\.bn1\.running_mean changed"):
        check_frozen(network, chosen)


@torch_test
def test_evaluation_sees_the_frozen_paths_own_pixels(fitted_s):
    from headstart.finetune.image_loader import Pictures

    learned = fitted_s.learned_
    places = learned.features.index[learned.partition.train]
    pictures = Pictures(learned.dataset, places, learned.backbone.preprocess, 2)
    chosen = np.linspace(0, len(places) - 1, 8).astype(int)
    [(_, found)] = pictures.batches([chosen])
    np.testing.assert_array_equal(found, fitted_s.model_.golden.pixels)
    one, same, other = (pictures.varied(3, "light", seed, 1) for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()


@torch_test
def test_a_fine_tuned_model_answers_without_pytorch(photos, tmp_path, monkeypatch):
    from headstart.finetune.verdict import Verdict

    monkeypatch.setattr(Verdict, "better", property(lambda self: True))
    fitted = timm_fit(photos, tmp_path)
    before = fitted.model_.backbone["sha256"]
    tuned = fine_tune(fitted, FineTuning(epochs=2, rate=1e-3, batch=8))
    assert len(tuned.history) == 2
    assert fitted.model_.backbone["sha256"] != before
    assert fitted.run_["fine_tuning"]["kept"] == "fine-tuned"
    fitted.save(tmp_path / "m")
    alone = answers_alone(tmp_path / "m", photos / "validation", without=("torch",))
    np.testing.assert_allclose(alone, fitted.predict_proba(photos / "validation"), atol=1e-6)


@torch_test
def test_out_of_memory_halves_the_batch_and_changes_nothing_else(fitted_s, monkeypatch):
    import torch

    from headstart.finetune import loop
    from headstart.finetune import run as tune

    how = FineTuning(epochs=1, batch=8, augmentation="none", unfreeze_from="features")
    wanted = fine_tune(fitted_s, how).histories["fold 1 of 3"]
    real, failed = loop._gradients, []

    def once(network, pixels, *rest):
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("injected")
        return real(network, pixels, *rest)

    sizes = []

    def short(work, some):
        sizes.append(len(some))
        if len(some) > 2:
            raise torch.OutOfMemoryError("injected")
        return 1.0

    monkeypatch.setattr(loop, "_gradients", once)
    monkeypatch.setattr(tune, "_timed", short)
    lines = []
    found = fine_tune(fitted_s, how, say=lines.append).histories["fold 1 of 3"]
    assert sizes == [8, 4, 2, 2]
    assert any("out of memory: 4 pictures at a time" in line for line in lines)
    assert found[0].loss == pytest.approx(wanted[0].loss, rel=1e-3)


SCRIPT = """
import sys, pathlib, torch, headstart as hs
torch.set_num_threads(1)
from headstart.finetune import FineTuning, fine_tune
from headstart.finetune import run as tune
data, folder, resume, out = sys.argv[1:]
real = tune._training
kept = []
def training(*a):
    found = real(*a)
    kept.append(found[1])
    return found
tune._training = training
c = hs.ImageClassifier(runtime="onnxruntime").fit(data)
print("fitted", flush=True)
fine_tune(c, FineTuning(epochs=3, batch=4, checkpoints=pathlib.Path(folder), resume=resume == "1"),
          say=lambda t: print(t, flush=True))
torch.save(kept, out)
"""


@torch_test
@pytest.mark.slow
def test_killed_at_ten_moments_and_resumed_the_weights_are_equal(photos, tmp_path):
    import torch

    def start(folder, resume):
        return subprocess.Popen([sys.executable, "-c", SCRIPT, photos, folder, resume, folder.with_suffix(".pt")],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip

    def same(folder):
        wanted, found = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", folder.name))
        for one, other in zip(wanted, found, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)

    whole = start(tmp_path / "whole", "0")
    told = whole.communicate()[0]
    assert whole.returncode == 0, told
    rng, folder, killed, resumed = np.random.default_rng(0), tmp_path / "0", 0, 0
    while killed < 10 or not folder.with_suffix(".pt").exists():
        if folder.with_suffix(".pt").exists():
            same(folder)
            folder = tmp_path / str(killed)
        running = start(folder, "1")
        wanted, moment = int(rng.integers(1, 4)), float(rng.uniform(0, 0.6))  # lines seen, and then so many seconds
        for line in running.stdout if killed < 10 else ():
            wanted -= ", epoch " in line or "going on" in line or "beginning anew" in line
            resumed += "going on after epoch" in line
            if not wanted:
                time.sleep(moment)
                running.send_signal(signal.SIGKILL)
                break
        told = running.communicate()[0]
        assert running.returncode in (0, -signal.SIGKILL), told
        killed += running.returncode == -signal.SIGKILL
    same(folder)
    assert resumed > 3


@torch_test
def test_without_a_checkpoint_resuming_says_that_it_begins_anew(fitted_s, tmp_path):
    lines = []
    how = FineTuning(epochs=1, unfreeze_from="features", checkpoints=tmp_path / "x", resume=True)
    fine_tune(fitted_s, how, say=lines.append)
    assert f"There is no checkpoint in {tmp_path / 'x'}: beginning anew" in lines
    lines.clear()
    fine_tune(fitted_s, how, say=lines.append)
    assert not any("beginning anew" in line for line in lines)
    assert sum("going on after epoch 1" in line for line in lines) == 3


@torch_test
def test_the_command_writes_a_report_that_says_fine_tuned_and_event_files(photos, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from headstart.cli import app
    from headstart.finetune.verdict import Verdict

    monkeypatch.setattr(Verdict, "better", property(lambda self: True))
    words = ["fit", photos, "-o", tmp_path / "m", "--fine-tune", "--gradual", "--epochs", "2", "--tuning", "mixup=0.2",
             "--runtime", "onnxruntime", "--precision", "fp32", "--tensorboard", tmp_path / "board"]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "m" / "report.html").read_text("utf-8")
    assert "headstart-s, fine-tuned</dd>" in page
    assert "Fine-tuning: trained from" in page
    kept = json.loads((tmp_path / "m" / "run.json").read_text("utf-8"))["fine_tuning"]
    assert kept["kept"] == "fine-tuned"
    assert {name: kept["options"][name] for name in ("gradual", "mixup", "precision")} == {
        "gradual": True, "mixup": 0.2, "precision": "fp32"
    }  # fmt: skip
    assert not (tmp_path / "m.unfinished").exists()
    assert (tmp_path / "m" / "training.svg").is_file()
    names = {"all-pictures", *(f"fold-{number}-of-3" for number in (1, 2, 3))}
    assert {each.name for each in (tmp_path / "board").iterdir()} == names
    assert all(list((tmp_path / "board" / name).glob("events.out.tfevents.*")) for name in names)


@torch_test
def test_checkpoints_that_lie_are_refused(tmp_path):
    import torch

    from headstart.finetune import checkpoint

    checkpoint.write(tmp_path, "x", {"a": torch.ones(3)}, {"settings": "s"})
    tensors, _ = checkpoint.read(tmp_path, "x", "s")
    assert tensors["a"].tolist() == [1, 1, 1]
    assert checkpoint.read(tmp_path, "y", "s") is None
    with pytest.raises(OptionError, match="other data or options"):
        checkpoint.read(tmp_path, "x", "t")
    for bad in ("{", "[]", '{"tensors": "../../etc/passwd"}', '{"tensors": "missing", "sha256": ""}'):
        (tmp_path / "x.json").write_text(bad)
        with pytest.raises(ModelError, match="damaged"):
            checkpoint.read(tmp_path, "x", "s")


@torch_test
def test_two_processes_learn_what_one_does(photos, tmp_path):
    import torch

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = tmp_path / "s.py"
    script.write_text(
        SCRIPT.replace(
            "torch.save(kept, out)", "import os\ntorch.save(kept, out + os.environ.get('RANK', ''))"
        ).replace("batch=4,", "batch=4, precision='fp32',")
    )
    arguments = [script, photos, tmp_path / "c", "0"]
    subprocess.run([sys.executable, *arguments, tmp_path / "one"], check=True, capture_output=True)
    done = subprocess.run([*command, *arguments, tmp_path / "two"], capture_output=True, text=True,
                          env={**os.environ, "ACCELERATE_USE_CPU": "true"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("on 2 processes") == 1  # the others are silent
    one, two = torch.load(tmp_path / "one"), torch.load(tmp_path / "two0")
    for alone, shared in zip(one, two, strict=True):
        for name in alone:
            # Adam divides by the gradient's own size: where that is rounding, so is the step.
            assert float((alone[name] - shared[name]).norm() / alone[name].norm()) < 1e-3


@torch_test
def test_errors_name_what_to_do(fitted_s, model_folder):
    with pytest.raises(OptionError, match="this classifier was loaded"):
        fine_tune(hs.load(model_folder).set_params(backbone="headstart-s"))
    with pytest.raises(HeadstartError, match="more than the limit"):
        fine_tune(fitted_s, FineTuning(time_limit=1e-6))
