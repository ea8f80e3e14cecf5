"""``headstart backbones quantize``, and the option ``--precision int8``."""

import json

from helpers.graphs import saved, trained_network

from headstart.backbones.scaling import USUAL, Scaling
from headstart.data import open_dataset


def test_a_backbone_is_quantised_and_used(run, photos, tmp_path):
    id = f"onnx:{saved(tmp_path)}"
    status, _, err = run("fit", photos, "--backbone", id, "--precision", "int8", "-o", tmp_path / "model")
    assert status == 2
    assert f"headstart backbones quantize {id} --images FOLDER" in err
    status, out, err = run("backbones", "quantize", id, "--images", photos, "--count", 16)
    assert status == 0
    assert "assumed" in err
    assert "MB, in " in out
    assert out.splitlines()[1] == f"Use it: headstart fit DATA --backbone {id} --precision int8"
    fit = ("fit", photos, "--backbone", id, "--precision", "int8", "--no-report", "-o", tmp_path / "model", "--json")
    status, out, _ = run(*fit)
    assert status == 0
    result = json.loads(out)
    assert result["runtime"]["precision"] == result["backbone"]["precision"] == "int8"
    status, out, _ = run("verify", tmp_path / "model")
    assert status == 0
    assert "int8" in out


def test_a_backbone_whose_scaling_nobody_names_is_quantised_as_it_is_used(run, photos, tmp_path):
    scaling = Scaling(*USUAL["ImageNet's mean and deviation"])
    id = trained_network(scaling, open_dataset(photos).split("train"), tmp_path / "net.onnx")
    status, _, err = run("backbones", "quantize", id, "--images", photos, "--count", 16)
    assert status == 0
    assert f"its batch norms fit {scaling}, which is taken" in err
    fit = ("fit", photos, "--backbone", id, "--precision", "int8", "--no-report", "-o", tmp_path / "model")
    assert run(*fit)[0] == 0
    run_json = json.loads((tmp_path / "model" / "run.json").read_text())
    assert run_json["backbone"]["precision"] == "int8"
    assert run_json["backbone"]["scaling"]["mean"] == list(scaling.mean)


def test_a_built_in_backbone_is_not_quantised_again(run, photos):
    status, _, err = run("backbones", "quantize", "headstart-m", "--images", photos)
    assert status == 2
    assert err == "headstart: headstart-m comes with an int8 version; use it: headstart fit DATA --precision int8\n"


def test_too_few_or_too_many_images_are_refused(run, photos, tmp_path):
    id = f"onnx:{saved(tmp_path)}"
    for count in (1, 2000):
        status, _, err = run("backbones", "quantize", id, "--images", photos, "--count", count)
        assert status == 2
        assert err == f"headstart: {count} images cannot be used; give 16 to 1,000.\n"
    status, _, err = run("backbones", "quantize", id, "--images", tmp_path / "none")
    assert status == 2
    assert "none" in err


def test_a_dry_run_and_a_check_know_int8(run, photos):
    status, out, _ = run("fit", photos, "--precision", "int8", "--dry-run", "--json")
    assert status == 0
    assert json.loads(out)["cost"]["seconds"] > 0
    status, _, err = run("fit", photos, "--precision", "int4", "--dry-run")
    assert status == 2
    assert "choose one of auto, fp32, bf16, int8" in err
    assert run("fine-tune", photos, "--precision", "int8")[0] == 2
