"""``headstart fine-tune``."""

import json
import subprocess
import sys
from dataclasses import fields
from functools import partial

from helpers.finetuning import always_better
from helpers.frameworks import marked
from helpers.photos import ROOT
from typer.main import get_command
from typer.testing import CliRunner

from headstart.cli import app
from headstart.cli.fine_tune import TrainingFlags
from headstart.finetune.options import TUNING
from headstart.machine import one_at_a_time
from headstart.model.folder import read_model

torch_test = marked("torch", "timm", "accelerate", "onnxscript")


def test_every_option_is_in_the_guide():
    page = (ROOT / "docs" / "how-to" / "fine-tune.md").read_text("utf-8")
    command = get_command(app).commands["fine-tune"]
    options = {option.opts[0] for option in command.params if option.name in {f.name for f in fields(TrainingFlags)}}
    assert {"--gradual", "--epochs", "--tensorboard"} <= options
    assert not [name for name in (*options, "--precision", *TUNING) if f"`{name}" not in page]


def test_options_of_training_belong_to_fine_tune_alone(tmp_path):
    completed = CliRunner().invoke(app, ["fit", str(tmp_path), "-o", str(tmp_path / "m"), "--layer-decay", "0.5"])
    assert completed.exit_code == 2
    assert not (tmp_path / "m").exists()


def test_a_refused_run_waits_for_the_start_of_the_device(tmp_path):
    """Else PyTorch is imported while the interpreter ends, and aborts it now and then."""
    code = f"""
import sys, time
from headstart import finetune
from headstart.cli import main
def start_device():
    time.sleep(0.5)
    print("started", flush=True)
finetune.check_fine_tuning, finetune.start_device = lambda *_: None, start_device
sys.argv = ["headstart", "fine-tune", {str(tmp_path / "none")!r}, "-o", {str(tmp_path / "m")!r}]
main()
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (completed.returncode, completed.stdout) == (2, "started\n"), completed.stderr
    assert "none" in completed.stderr


def test_class_weights_of_several_labels_are_refused_before_features_are_read(labelled, tmp_path, monkeypatch):
    for name in ("check_fine_tuning", "start_device"):  # which need PyTorch
        monkeypatch.setattr(f"headstart.finetune.{name}", lambda *_: None)
    monkeypatch.setattr("headstart.classifier.fit_multi_label", None)
    arguments = ["fine-tune", labelled, "-o", tmp_path / "m", "--backbone", "headstart-s", "--class-weights"]
    completed = CliRunner().invoke(app, [*map(str, arguments)])
    assert completed.exit_code == 2
    assert "Class weights are for one class an image" in " ".join(completed.output.split())


def test_two_runs_do_not_share_their_checkpoints(photos, tmp_path, monkeypatch):
    for name in ("check_fine_tuning", "start_device"):  # which need PyTorch
        monkeypatch.setattr(f"headstart.finetune.{name}", lambda *_: None)
    (tmp_path / "m.unfinished").mkdir()
    (tmp_path / "m.unfinished" / "fold-1-of-3.0123456789abcdef.safetensors").write_bytes(b"x")
    with one_at_a_time(tmp_path / "m.unfinished"):
        completed = CliRunner().invoke(app, ["fine-tune", str(photos), "-o", str(tmp_path / "m"), "--resume"])
    assert completed.exit_code == 2
    assert "Another process is writing to" in completed.output
    assert len([*(tmp_path / "m.unfinished").iterdir()]) == 1


@torch_test
def test_the_report_names_the_fine_tuned_backbone_and_event_files_are_written(photos, tmp_path, monkeypatch):
    from headstart.finetune import run as module

    monkeypatch.setattr(module, "run", partial(module.run, compare=always_better))
    arguments = ["fine-tune", photos, "-o", tmp_path / "m", "--gradual", "--epochs", "2", "--tuning", "mixup=0.2"]
    arguments += ["--backbone", "headstart-s", "--runtime", "onnxruntime", "--precision", "fp32"]
    arguments += ["--decode", "full", "--tensorboard", tmp_path / "events"]
    completed = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert completed.exit_code == 0, completed.output
    page = (tmp_path / "m" / "report.html").read_text("utf-8")
    assert "headstart-s, fine-tuned</dd>" in page
    assert "Fine-tuning: first trained layer" in page
    info = json.loads((tmp_path / "m" / "run.json").read_text("utf-8"))["fine_tuning"]
    assert read_model(tmp_path / "m").preprocess.decode == "full"
    assert info["kept"] == "fine-tuned"
    assert {name: info["options"][name] for name in ("gradual", "mixup", "precision")} == {
        "gradual": True,
        "mixup": 0.2,
        "precision": "fp32",
    }
    assert not (tmp_path / "m.unfinished").exists()
    assert (tmp_path / "m" / "training.svg").is_file()
    names = {"all-images", *(f"fold-{number}-of-3" for number in (1, 2, 3))}
    assert {path.name for path in (tmp_path / "events").iterdir()} == names
    assert all(list((tmp_path / "events" / name).glob("events.out.tfevents.*")) for name in names)


@torch_test
def test_several_labels_an_image_are_fine_tuned(labelled, tmp_path, monkeypatch):
    from headstart.finetune import run as module

    monkeypatch.setattr(module, "run", partial(module.run, compare=always_better))
    common = ["--backbone", "headstart-s", "--runtime", "onnxruntime", "--group-by", "none", "--epochs", "1"]
    common += ["--unfreeze-from", "features", "--target-precision", "0.8"]
    arguments = ["fine-tune", labelled, "-o", tmp_path / "m", *common]
    completed = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert completed.exit_code == 0, completed.output
    assert "Fine-tuned is better than frozen: log-loss " in completed.stderr
    assert completed.stdout.startswith("Labels      multi-label: 3 labels, ")
    assert "after one epoch, mean of 3 folds: accuracy " in completed.stdout
    assert (tmp_path / "m" / "training.svg").is_file()
    assert not (tmp_path / "m.unfinished").exists()
    completed = CliRunner().invoke(app, [*map(str, arguments), "--json", "--quiet"], catch_exceptions=False)
    found = json.loads(completed.stdout)
    assert found["fine_tuning"]["kept"] == "fine-tuned"
    assert found["label_thresholds"]["target"] == "precision"
    model = read_model(tmp_path / "m")
    assert model.run["fine_tuning"]["why"] == found["fine_tuning"]["why"]
    assert model.label_thresholds.target == "precision"
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "m")]).exit_code == 0
