"""Options of fine-tuning, and which backbones can be fine-tuned."""

import importlib.util
from pathlib import Path

import pytest

from headstart.errors import BackboneError, MissingExtraError, OptionError
from headstart.finetune import FineTuneConfig, check_fine_tuning, is_main_process, parse_tuning
from headstart.finetune.checkpoint import delete_checkpoints


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"layer_decay": 0},
        {"layer_decay": 1.1},
        {"warm_up": -0.1},
        {"l2_sp": 2},
        {"ema": 1},
        {"label_smoothing": 1},
        {"clip": -1},
        {"optimizer": "lion"},
        {"augmentation": "heavy"},
        {"batch_norm": "on"},
        {"patience": 0},
        {"stop_at_accuracy": 1.1},
        {"time_limit": 0},
        {"resume": True},
    ],
)
def test_invalid_options_raise_an_error_of_one_line(bad):
    with pytest.raises(OptionError) as raised:
        FineTuneConfig(**bad)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("bad", [{"mixup": -1}, {"cutmix": float("nan")}, {"cutmix": 1e9}, {"precision": "int8"}])
def test_invalid_mixing_and_precision_are_named(bad):
    with pytest.raises(OptionError, match=next(iter(bad))):
        FineTuneConfig(**bad)


def test_the_batch_size_is_chosen_for_the_device_unless_given():
    assert FineTuneConfig(batch_size=7).batch_size_for("cuda", 10**6) == 7
    assert FineTuneConfig().batch_size_for("cpu", 10**6) == 16
    for images, size in ((10, 16), (1023, 16), (1024, 32), (2047, 32), (2048, 64), (10**6, 128)):
        assert FineTuneConfig().batch_size_for("cuda", images) == size
    for images in (1024, 5000):
        assert images // FineTuneConfig().batch_size_for("mps", images) >= 32


def test_tuning_is_read_by_name():
    assert parse_tuning("ema=0.9, clip=2") == {"ema": 0.9, "clip": 2.0}
    for bad in ("ema", "ema=x", "checkpoints=1", "class_weights=1", "epochs=2"):
        with pytest.raises(OptionError, match="cannot be read"):
            parse_tuning(bad)


def test_event_files_without_tensorboard_name_what_to_install(monkeypatch):
    monkeypatch.setattr("headstart.finetune.options.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install"):
        FineTuneConfig(tensorboard=Path("events"))
    assert FineTuneConfig().to_dict().keys().isdisjoint({"tensorboard", "checkpoints", "resume"})


def test_onnx_graphs_are_refused_with_what_to_use_instead():
    with pytest.raises(BackboneError, match="use the same network as timm:NAME"):
        check_fine_tuning("onnx:net.onnx", FineTuneConfig())


def test_checkpoints_of_an_interrupted_run_are_never_thrown_away_unasked(monkeypatch, tmp_path):
    monkeypatch.setattr("headstart.finetune.find_spec", lambda name: name)
    folder = tmp_path / "model.unfinished"
    folder.mkdir()
    for name in ("all-images.json", "all-images.0123456789abcdef.safetensors", "notes.txt"):
        (folder / name).write_text("x")
    with pytest.raises(OptionError, match="continue it with --resume"):
        check_fine_tuning("headstart-s", FineTuneConfig(checkpoints=folder))
    check_fine_tuning("headstart-s", FineTuneConfig(checkpoints=folder, resume=True))
    delete_checkpoints(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    check_fine_tuning("headstart-s", FineTuneConfig(checkpoints=folder))
    (folder / "notes.txt").unlink()
    delete_checkpoints(folder)
    delete_checkpoints(folder)
    assert not folder.exists()


def test_weights_that_lie_where_checkpoints_would_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr("headstart.finetune.find_spec", lambda name: name)
    names = ["mobilenet.json", "mobilenet.safetensors", "a.b.0123456789abcdef.safetensors"]
    for name in names:
        (tmp_path / name).write_text("x")
    (tmp_path / "fold-1-of-5.0123456789abcdef.safetensors").mkdir()
    check_fine_tuning("headstart-s", FineTuneConfig(checkpoints=tmp_path))
    delete_checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(names)


def test_missing_packages_are_named_with_their_extras(monkeypatch):
    monkeypatch.setattr("headstart.finetune.find_spec", lambda name: None)
    for backbone, extras in (("headstart-s", "torch"), ("timm:x", "torch,timm"), ("keras:X", "torch,keras")):
        with pytest.raises(MissingExtraError, match=rf"needs PyTorch and Accelerate.*headstart\[{extras}\]"):
            check_fine_tuning(backbone, FineTuneConfig())
    assert is_main_process()


def test_a_single_process_is_the_main_process():
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("needs accelerate (make zoo installs it)")
    assert is_main_process()
