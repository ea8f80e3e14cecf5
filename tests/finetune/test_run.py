"""Whole fine-tunings of a fit. Needs PyTorch."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.finetuning import always_better, checkpoint_tensors, fit_timm
from helpers.frameworks import marked, predict_in_new_process
from helpers.labels import write_labelled

import headstart as hs
from headstart.errors import BackboneError, DataError, HeadstartError, OptionError
from headstart.finetune import FineTuneConfig, fine_tune
from headstart.machine import has_bf16
from headstart.model.folder import write_model
from headstart.splits.groups import Groups

torch_test = marked("torch", "timm", "accelerate", "onnxscript")


def trainings(result):
    """The epochs of every training by its name, as in ``run.json``."""
    return result.model.run["fine_tuning"]["trainings"]


@torch_test
def test_class_weights_and_costs_of_the_fit_are_those_of_the_fine_tuned_model(builtin_fit):
    from headstart.classifier.class_settings import ClassSettings
    from headstart.classifier.fit import FitTimes, make_result
    from headstart.finetune.run import run

    costs = {"disc": {"disc": 0, "stripes": 1}, "stripes": {"disc": 9, "stripes": 0}}
    settings = ClassSettings.of({"disc": 1, "stripes": 50}, costs, None, ("disc", "stripes"))
    data = replace(builtin_fit.data, settings=settings)
    weighted = make_result(builtin_fit.options, data, builtin_fit.selected, FitTimes(0.0, 0.0))
    config = FineTuneConfig(epochs=1, learning_rate=1e-4, batch_size=8)
    plain = run(builtin_fit, config, lambda _: None, compare=always_better)
    tuned = run(weighted, config, lambda _: None, compare=always_better)
    # The same training, and behind it the weights, once.
    np.testing.assert_allclose(tuned.model.head.weights, plain.model.head.weights, atol=1e-4)
    shift = (tuned.model.head.bias - plain.model.head.bias) / plain.model.head.temperature
    np.testing.assert_allclose(shift, np.log([1, 50]), atol=1e-3)
    np.testing.assert_array_equal(tuned.model.rule.costs, [[0, 1], [9, 0]])
    assert tuned.model.run["class_weight"]["weights"] == {"disc": 1, "stripes": 50}


@torch_test
def test_classes_are_not_weighted_twice(builtin_fit):
    weighted = replace(builtin_fit, options=replace(builtin_fit.options, class_weight="balanced"))
    with pytest.raises(OptionError, match="weighted twice"):
        fine_tune(weighted, FineTuneConfig(class_weights=True))


@torch_test
def test_a_fine_tuned_model_predicts_without_pytorch(photos, tmp_path):
    from headstart.finetune.run import run

    frozen = fit_timm(photos, tmp_path)
    lines = []
    config = FineTuneConfig(epochs=2, learning_rate=1e-3, batch_size=8)
    tuned = run(frozen, config, lines.append, compare=always_better)
    info = tuned.model.run["fine_tuning"]
    assert info["kept"] == "fine-tuned"
    assert info["why"] in lines
    assert len(tuned.model.run["training"]) == 2
    assert tuned.model.run["training"] == info["trainings"]["all images"]
    assert tuned.model.backbone["sha256"] != frozen.model.backbone["sha256"]
    assert tuned.model.run["backbone"]["sha256"] == tuned.data.backbone.sha256 == tuned.model.backbone["sha256"]
    assert "fine_tuning" not in frozen.model.run
    folder = write_model(tuned.model, tmp_path / "m")
    alone = predict_in_new_process(folder, photos / "validation", without=("torch",))
    here = hs.Predictor(tuned.model).predict(photos / "validation").probabilities
    np.testing.assert_allclose(alone, here, atol=1e-6)


@torch_test
def test_a_frozen_model_that_is_kept_is_the_same_and_says_so(builtin_fit):
    config = FineTuneConfig(epochs=1, learning_rate=1e-9, unfreeze_from="features")
    result = fine_tune(builtin_fit, config)
    info = result.model.run["fine_tuning"]
    assert info["kept"] == "frozen"
    assert "the frozen model is kept" in info["why"]
    assert info["options"]["learning_rate"] == 1e-9
    assert [*info["trainings"]] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    assert result.model.graph == builtin_fit.model.graph
    assert {**result.model.run, "fine_tuning": None} == {**builtin_fit.model.run, "fine_tuning": None}
    assert vars(replace(result, model=builtin_fit.model)) == vars(builtin_fit)
    assert "fine_tuning" not in builtin_fit.model.run


@torch_test
def test_out_of_memory_halves_the_batch_and_changes_nothing_else(builtin_fit, monkeypatch):
    import torch

    from headstart.finetune.network import Network

    config = FineTuneConfig(epochs=1, batch_size=8, augmentation="none", unfreeze_from="features")
    expected = trainings(fine_tune(builtin_fit, config))["fold 1 of 3"]
    compute_vectors = Network.vectors

    def vectors(network, pixels):
        if torch.is_grad_enabled() and len(pixels) > 4:
            raise torch.OutOfMemoryError("injected")
        return compute_vectors(network, pixels)

    monkeypatch.setattr(Network, "vectors", vectors)
    lines = []
    epochs = trainings(fine_tune(builtin_fit, config, log=lines.append))["fold 1 of 3"]
    assert any("out of memory: 4 images at a time" in line for line in lines)
    assert epochs[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-3)


@torch_test
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_out_of_memory_checks_the_start_in_parts(builtin_fit, device):
    """On a network that only notes what it is asked, so that CUDA is not needed."""
    import torch

    from headstart.finetune.run import _move_and_check

    golden, images = builtin_fit.model.golden, builtin_fit.model.golden.pixels
    asked, checked, moved = [], [], []

    def check(memory):
        def check_start(pixels, probabilities):
            asked.append(len(pixels))
            if len(pixels) > memory:
                raise torch.OutOfMemoryError("injected")
            checked.append((pixels, probabilities))

        network = SimpleNamespace(fold=lambda _: None, move=lambda *to: moved.append(to), check_start=check_start)
        asked.clear()
        checked.clear()
        return _move_and_check(network, SimpleNamespace(device=torch.device(device)), builtin_fit, 30)

    assert len(images) == 8
    assert check(5) >= 0
    assert moved == [(torch.device(device), 30)]
    assert asked == {"cpu": [8, 8, 8, 4, 4], "cuda": [128, 64, 32, 16, 8, 4, 4, 4, 4]}[device]
    rounds = 1 if device == "cpu" else 2
    np.testing.assert_array_equal(np.concatenate([pixels for pixels, _ in checked]), np.tile(images, (rounds, 1, 1, 1)))
    expected = np.tile(golden.probabilities, (rounds, 1))
    np.testing.assert_array_equal(np.concatenate([probabilities for _, probabilities in checked]), expected)
    check(1000)
    assert asked == ([8] if device == "cpu" else [128, 128])
    np.testing.assert_array_equal(checked[0][0], images[np.arange(asked[0]) % 8])
    with pytest.raises(BackboneError, match="memory here is too small"):
        check(0)


@torch_test
@pytest.mark.parametrize(("processes", "kept"), [(1, 7), (3, 2)])
def test_processes_share_the_memory_for_images_and_trainings_a_recorder_for_what_is_resolved(
    builtin_fit, monkeypatch, processes, kept
):
    import torch

    from headstart.finetune import image_loader
    from headstart.finetune import run as module

    class Made(Exception):
        """The task was made, which is all that this test needs."""

    def stop(network, images, *rest):
        raise Made(len(images._kept), rest[-1])

    def note(config, network, device):
        return config.batch_norm, config.precision, config.batch_size, network.provider, device.type

    preprocess = builtin_fit.data.backbone.preprocess
    monkeypatch.setattr(image_loader, "memory_budget", lambda: 7 * preprocess.height * preprocess.width * 3)
    accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=processes, mixed_precision="no")
    monkeypatch.setattr(module, "Accelerator", lambda: accelerator)
    monkeypatch.setattr(module, "Task", stop)
    monkeypatch.setattr(module.Recorder, "of", note)
    with pytest.raises(Made) as made:
        module.run(builtin_fit, FineTuneConfig(batch_norm="update"), lambda _: None)
    resolved = "bf16" if has_bf16() else "fp32"
    assert made.value.args == (kept, ("update", resolved, 16, "headstart-s", "cpu"))


@torch_test
def test_resuming_without_a_checkpoint_says_that_it_starts_from_the_beginning(builtin_fit, tmp_path):
    lines = []
    config = FineTuneConfig(epochs=1, unfreeze_from="features", checkpoints=tmp_path / "x", resume=True)
    fine_tune(builtin_fit, config, log=lines.append)
    assert f"There is no checkpoint in {tmp_path / 'x'}: starting from the beginning" in lines
    lines.clear()
    fine_tune(builtin_fit, config, log=lines.append)
    assert not any("starting from the beginning" in line for line in lines)
    assert sum("continuing after epoch 1" in line for line in lines) == 3


@torch_test
def test_a_resumed_run_has_as_many_epochs_as_the_interrupted_one(builtin_fit, tmp_path):
    def interrupt(line):
        if line.startswith("fold 1 of 3, epoch 1"):
            raise KeyboardInterrupt

    config = FineTuneConfig(epochs=4, unfreeze_from="features", checkpoints=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(builtin_fit, config, log=interrupt)
    path = tmp_path / "fold-1-of-3.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**values, "epochs": 2}), "utf-8")  # as if a time limit had lowered it
    result = fine_tune(builtin_fit, replace(config, resume=True))
    assert result.model.run["fine_tuning"]["options"]["epochs"] == 2
    assert {len(epochs) for epochs in trainings(result).values()} == {2}


@torch_test
def test_errors_say_what_to_do(builtin_fit, model_folder):
    with pytest.raises(OptionError, match="a model that was loaded has no training images"):
        fine_tune(hs.load(model_folder))
    with pytest.raises(HeadstartError, match="more than the limit"):
        fine_tune(builtin_fit, FineTuneConfig(time_limit=1e-6))
    split = builtin_fit.data.split
    one_group = Groups(np.zeros_like(split.groups.index), 1, len(split.labels), "column")
    data = replace(builtin_fit.data, split=replace(split, groups=one_group))
    with pytest.raises(DataError, match="images of at least two groups"):
        fine_tune(replace(builtin_fit, data=data))


SCRIPT = """
import sys
from pathlib import Path
import numpy
import torch
from headstart import Compute, FitOptions, fit_dataset, fit_multi_label, open_dataset
from headstart.finetune import FineTuneConfig, is_main_process
from headstart.finetune.label_verdict import compare_labels_to_frozen
from headstart.finetune.run import run
from headstart.finetune.verdict import compare_to_frozen

torch.set_num_threads(1)
data, checkpoints, resume, precision, output, group_by = sys.argv[1:]
held_out = []

dataset = open_dataset(data)
fit, compare_scores = (
    (fit_multi_label, compare_labels_to_frozen) if dataset.is_multi_label else (fit_dataset, compare_to_frozen)
)

def compare(frozen, tuned, *arguments):
    held_out.append(tuned)
    return compare_scores(frozen, tuned, *arguments)

result = fit(dataset, FitOptions("headstart-s", compute=Compute("onnxruntime"), group_by=group_by))
print("fitted", flush=True)
config = FineTuneConfig(
    epochs=3, batch_size=4, precision=precision, checkpoints=Path(checkpoints), resume=resume == "1"
)
run(result, config, lambda text: print(text, flush=True), compare=compare)
if is_main_process():
    numpy.save(output, held_out[0])
"""


@torch_test
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "moments"), [("one class", 10), ("several labels", 5)])
def test_killed_at_many_moments_and_resumed_the_weights_are_equal(kind, moments, photos, tmp_path):
    import torch

    data, group_by = photos, "auto"
    if kind == "several labels":
        data, group_by = tmp_path / "images" / "labels.csv", "none"
        rows = write_labelled(data.parent, 24) + write_labelled(data.parent, 6, 1, "validation")
        rows[0] = "train_000.png,?disc,train"
        data.write_text("\n".join(["path,labels,split", *rows]), "utf-8")

    def start(folder, resume):
        command = [sys.executable, "-c", SCRIPT, data, folder, resume, "auto", folder.with_suffix(".npy"), group_by]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def assert_equal_to_uninterrupted(folder):
        scores = [np.load(path.with_suffix(".npy")) for path in (tmp_path / "uninterrupted", folder)]
        np.testing.assert_array_equal(*scores)
        expected, actual = (checkpoint_tensors(path) for path in (tmp_path / "uninterrupted", folder))
        assert expected.keys() == actual.keys()
        for name in expected:
            assert expected[name].keys() == actual[name].keys()
            assert all(torch.equal(expected[name][key], actual[name][key]) for key in expected[name])

    uninterrupted = start(tmp_path / "uninterrupted", "0")
    output = uninterrupted.communicate()[0]
    assert uninterrupted.returncode == 0, output
    rng, folder, kills, resumptions = np.random.default_rng(0), tmp_path / "0", 0, 0
    while kills < moments or not folder.with_suffix(".npy").exists():
        if folder.with_suffix(".npy").exists():
            assert_equal_to_uninterrupted(folder)
            folder = tmp_path / str(kills)
        process = start(folder, "1")
        lines_left, delay = int(rng.integers(1, 4)), float(rng.uniform(0, 0.6))  # then so many seconds
        for line in process.stdout if kills < moments else ():
            lines_left -= ", epoch " in line or "continuing after" in line or "starting from the beginning" in line
            resumptions += "continuing after epoch" in line
            if not lines_left:
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                break
        output = process.communicate()[0]
        assert process.returncode in (0, -signal.SIGKILL), output
        kills += process.returncode == -signal.SIGKILL
    assert_equal_to_uninterrupted(folder)
    assert resumptions > moments // 3


@torch_test
@pytest.mark.parametrize("data", ["photos", "labelled"])
def test_two_processes_train_what_one_does(data, request, tmp_path):
    data, group_by = request.getfixturevalue(data), {"photos": "auto", "labelled": "none"}[data]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, "utf-8")

    def arguments(name):
        return [script, data, tmp_path / name, "0", "fp32", tmp_path / f"{name}.npy", group_by]

    subprocess.run([sys.executable, *arguments("one")], check=True, capture_output=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    completed = subprocess.run([*launch, *arguments("two")], capture_output=True, text=True, env=environment)
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert completed.stdout.count("on 2 processes") == 1  # the other process is silent
    one, two = checkpoint_tensors(tmp_path / "one"), checkpoint_tensors(tmp_path / "two")
    assert one.keys() == two.keys() >= {"fold-1-of-3", "fold-2-of-3", "fold-3-of-3"}
    for name in one:
        for key in [key for key in one[name] if key.startswith("network.")]:
            # Adam divides by the size of the gradient: where that is rounding, so is the step.
            difference = float((one[name][key] - two[name][key]).norm() / one[name][key].norm())
            assert difference < 1e-3, (name, key)
