"""The command line as users meet it: text, JSON, exit status, one line for every mistake."""

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.photos import write_photos

from headstart import __version__, backbones
from headstart.cli import __doc__ as cli_doc
from headstart.cli import app, main
from headstart.features.cache import FeatureCache
from headstart.features.features import small_key
from headstart.model import read, write


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``headstart ARGS`` in this process: status, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


def test_fit_tells_people_what_it_found(run, photos, tmp_path):
    status, out, err = run("fit", photos, "-o", tmp_path / "model")
    assert status == 0
    assert "28 to learn from, 12 held out; classes: disc, stripes" in out
    assert "on held-out pictures" in out
    assert "on groups left out" in out
    assert out.count("95% interval") == 2
    assert "More        with 20 more pictures expect " in out
    assert err == ""
    assert (tmp_path / "model" / "model.onnx").exists()


def test_fit_json_has_the_documented_form(run, photos, tmp_path):
    status, out, _ = run("fit", photos, "-o", tmp_path / "model", "--json")
    found = json.loads(out)
    assert status == 0
    assert set(found) == {
        "model", "classes", "images", "groups", "backbone", "cut", "head", "runtime", "accuracy", "seconds", "cache",
        "learning_curve",
        "report",
    }  # fmt: skip
    assert Path(found["report"]) == tmp_path / "model" / "report.html"
    assert Path(found["report"]).exists()
    assert found["classes"] == ["disc", "stripes"]
    assert found["images"]["train"] == 28
    assert found["images"]["validation"] == 12
    assert found["images"]["quarantined"] == 0
    assert set(found["groups"]) >= {"count", "largest"}
    assert set(found["backbone"]) >= {"id", "sha256"}
    assert isinstance(found["cut"], list)
    for method in ("validation", "leave_group_out"):
        entry = found["accuracy"][method]
        assert set(entry) == {"correct", "count", "value", "interval", "method"}
        assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]
    assert set(found["seconds"]) == {"total", "decode", "features", "head"}
    assert found["cache"] == {"hits": 0, "misses": 40}
    expected = found["learning_curve"]["expectation"]
    assert (expected["more"], expected["pictures"], expected["per_class"]) == (20, 48, [24, 24])
    assert expected["interval"][0] <= expected["accuracy"] <= expected["interval"][1]


def test_the_report_is_written_and_can_be_left_out_and_made_again(run, photos, tmp_path):
    model = tmp_path / "model"
    status, out, _ = run("fit", photos, "-o", model)
    assert status == 0
    assert out.splitlines()[-1] == f"Report      {model / 'report.html'}"
    page = (model / "report.html").read_bytes()
    status, out, err = run("report", model, "-o", tmp_path / "page.html")
    assert (status, out.strip(), err) == (0, str(tmp_path / "page.html"), "")
    assert (tmp_path / "page.html").read_bytes() == page
    status, out, _ = run("fit", photos, "-o", model, "--no-report", "--json")
    assert json.loads(out)["report"] is None
    assert not [p.name for p in model.iterdir() if "report" in p.name]
    status, out, err = run("report", model)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "--no-report" in err


@pytest.mark.parametrize("options", [(), ("--no-report",)])
def test_what_a_report_shows_is_kept_as_the_pictures_are_decoded(run, photos, tmp_path, monkeypatch, options):
    monkeypatch.setattr("headstart.cli.fit.write_report", lambda *_: "page")  # it would decode what is not there
    assert run("fit", photos, "-o", tmp_path / "model", *options)[0] == 0
    with FeatureCache() as cache:
        keys = [small_key(hashlib.sha256(path.read_bytes()).digest()) for path in photos.rglob("*.jpg")]
        assert keys
        assert all((each is None) == bool(options) for each in cache.get_many(keys))


def test_a_second_fit_reads_the_cache_and_ten_more_pictures_are_ten_misses(run, tmp_path):
    data = write_photos(tmp_path / "data", 10)
    assert json.loads(run("fit", data, "-o", tmp_path / "m", "--json")[1])["cache"] == {"hits": 0, "misses": 20}
    assert json.loads(run("fit", data, "-o", tmp_path / "m", "--json")[1])["cache"] == {"hits": 20, "misses": 0}
    more = write_photos(tmp_path / "more", 5, seed=9)
    for p in more.rglob("*.jpg"):
        p.rename(data / p.parent.name / f"new-{p.name}")
    assert json.loads(run("fit", data, "-o", tmp_path / "m", "--json")[1])["cache"] == {"hits": 20, "misses": 10}
    assert json.loads(run("fit", data, "-o", tmp_path / "m", "--json", "--no-cache")[1])["cache"]["hits"] == 0


def test_predict_names_each_picture(run, model_folder, photos):
    pictures = sorted((photos / "validation" / "disc").iterdir())
    status, out, _ = run("predict", model_folder, *pictures, "--top", 2)
    lines = [line.split("\t") for line in out.splitlines()]
    assert status == 0
    assert [line[0] for line in lines] == [str(p) for p in pictures]
    assert all({line[1], line[3]} == {"disc", "stripes"} for line in lines)


def test_predict_json_is_one_object_a_line(run, model_folder, photos, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    picture = next((photos / "validation" / "disc").iterdir())
    status, out, err = run("predict", model_folder, picture, tmp_path / "bad.jpg", "--json", "--top", 2)
    good, bad = map(json.loads, out.splitlines())
    assert status == 0
    assert good["path"] == str(picture)
    assert sum(entry["probability"] for entry in good["classes"]) == pytest.approx(1)
    assert good["classes"][0]["probability"] >= good["classes"][1]["probability"]
    assert isinstance(good["none_of_these"], bool)
    assert good["set"][0] == good["classes"][0]["class"]
    assert 0 <= good["distance"] <= 1
    assert bad["path"].endswith("bad.jpg")
    assert "Not a picture" in bad["error"]
    assert "1 pictures could not be read" in err


def test_predict_csv_reads_back(run, model_folder, photos):
    status, out, _ = run("predict", model_folder, photos / "validation" / "stripes", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert len(rows) == 6
    assert {row["class_1"] for row in rows} <= {"disc", "stripes"}
    assert all(0.5 <= float(row["probability_1"]) <= 1 for row in rows)
    assert {row["none_of_these"] for row in rows} <= {"true", "false"}
    assert all(row["set"].split("|")[0] == row["class_1"] for row in rows)


def test_evaluate_and_verify(run, model_folder, photos):
    status, out, _ = run("evaluate", model_folder, photos / "validation", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["accuracy"]["count"] == 12
    assert sum(map(sum, found["confusion"])) == 12
    assert found["coverage"]["promised"] == 0.95
    assert found["coverage"]["found"]["count"] == found["none_of_these"]["known"]["count"] == 12
    assert 1 <= found["coverage"]["found"]["set_size"] <= 2
    assert found["none_of_these"]["unknown"] is None
    status, out, _ = run("evaluate", model_folder, photos / "validation")
    assert out.startswith("Accuracy  ")
    assert "hold the true class, 95% promised" in out
    assert "of known classes, 5% promised" in out
    assert "95% interval" in out
    status, out, _ = run("verify", model_folder, "--json")
    assert status == 0
    assert json.loads(out)["pictures"] == 8
    assert json.loads(out)["distance"] is not None
    status, out, _ = run("verify", model_folder, "--runtime", "onnxruntime")
    assert "answers as it should" in out


def with_promises(folder, target, **changes):
    """The model folder with other thresholds."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text("utf-8"))
    (target / "config.json").write_text(json.dumps(config | changes), "utf-8")
    return target


def test_refused_pictures_and_sets_are_told_in_every_form(run, model_folder, photos, tmp_path):
    strict = with_promises(model_folder, tmp_path / "m", reject_threshold=0.0, set_thresholds=[0.0, 0.0])
    picture = next((photos / "validation" / "disc").iterdir())
    path, refused, nearest, first, _, could_be = run("predict", strict, picture)[1].rstrip("\n").split("\t")
    assert (path, refused, nearest) == (str(picture), "none of these", "nearest:")
    assert could_be in ("could be disc, stripes", "could be stripes, disc")
    found = json.loads(run("predict", strict, picture, "--json")[1])
    assert found["none_of_these"] is True
    assert sorted(found["set"]) == ["disc", "stripes"]
    assert found["set"][0] == found["classes"][0]["class"] == first
    (row,) = csv.DictReader(io.StringIO(run("predict", strict, picture, "--csv")[1]))
    assert row["none_of_these"] == "true"
    assert sorted(row["set"].split("|")) == ["disc", "stripes"]
    found = json.loads(run("evaluate", strict, photos / "validation", "--json")[1])
    assert found["coverage"]["found"]["set_size"] == 2
    assert found["coverage"]["found"]["value"] == found["none_of_these"]["known"]["value"] == 1


def test_pictures_of_unknown_classes_that_are_refused_are_counted(run, model_folder, photos, tmp_path):
    strict = with_promises(model_folder, tmp_path / "m", reject_threshold=0.0)
    shutil.copytree(photos / "validation" / "disc", tmp_path / "data" / "zebra")
    out = run("evaluate", strict, tmp_path / "data")[1]
    assert "of classes that the model does not know" in out
    assert "hold the true class" not in out
    found = json.loads(run("evaluate", strict, tmp_path / "data", "--json")[1])
    assert found["none_of_these"]["unknown"]["correct"] == 6
    assert found["coverage"]["found"] is None


def test_a_model_of_format_1_answers_and_says_that_it_promises_nothing(run, model_folder, photos, tmp_path):
    old = write(replace(read(model_folder), promises=None, familiar=None), tmp_path / "old")
    assert json.loads((old / "config.json").read_text("utf-8"))["format"] == 1
    picture = next((photos / "validation" / "disc").iterdir())
    _, out, err = run("predict", old, picture, "--json")
    found = json.loads(out)
    assert found["classes"][0]["class"] in ("disc", "stripes")
    assert found["none_of_these"] is found["set"] is found["distance"] is None
    assert "before there were prediction sets" in err
    assert "none of these" not in run("predict", old, picture)[1]
    assert run("predict", old, picture, "--csv")[1].splitlines()[1].endswith(",,")
    assert "promised" not in run("evaluate", old, photos)[1]
    assert "coverage" not in json.loads(run("evaluate", old, photos, "--json")[1])
    assert json.loads(run("verify", old, "--json")[1])["distance"] is None


def test_promises_are_options_of_fit(run, photos, tmp_path):
    out = tmp_path / "m"
    _, _, err = run("fit", photos, "-o", out, "--coverage", 0.8, "--false-alarms", 0.2, "--group-by", "none")
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert (config["coverage"], config["false_alarms"]) == (0.8, 0.2)
    assert 0 < config["reject_threshold"] < 1
    assert err == ""
    _, _, err = run("fit", photos, "-o", out, "--coverage", 0.99, "--false-alarms", 0.01, "--group-by", "none")
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["reject_threshold"] is None
    assert config["set_thresholds"] == [0, 0]
    assert "28 groups of pictures are too few to promise 99% coverage" in err
    assert err.count("99 groups are needed") == 2
    for option in (("--coverage", 1), ("--coverage", "nan"), ("--false-alarms", -0.1), ("--false-alarms", 1)):
        status, _, err = run("fit", photos, "-o", out, *option)
        assert status == 2
        assert err.count("\n") == 1


def test_evaluate_compares_models(run, model_folder, photos, tmp_path):
    status, out, _ = run("evaluate", model_folder, model_folder, photos)
    assert status == 0
    assert "12 pictures show no difference between" in out
    assert "McNemar p 1)" in out
    turned = tmp_path / "turned"
    for source, target in (("disc", "stripes"), ("stripes", "disc")):
        shutil.copytree(photos / "train" / source, turned / target)
    run("fit", turned, "-o", tmp_path / "bad")
    status, out, _ = run("evaluate", tmp_path / "bad", model_folder, photos, "--json", "--group-by", "none")
    found = json.loads(out)
    assert [each["model"] for each in found["models"]] == [str(tmp_path / "bad"), str(model_folder)]
    (pair,) = found["differences"]
    assert pair["real"]
    assert pair["difference"] > 0.5
    assert pair["only_second"] - pair["only_first"] == round(12 * pair["difference"])
    assert found["groups"]["count"] == 12
    out = run("evaluate", tmp_path / "bad", model_folder, photos, "--group-by", "none")[1]
    assert f"{model_folder} is better than {tmp_path / 'bad'}" in out
    assert run("evaluate", model_folder, tmp_path / "nothing", photos)[0] == 2
    assert run("evaluate", model_folder, model_folder, photos, "--group-by", "scene")[0] == 2


def test_backbones_list_names_what_load_takes(run):
    backbones.load("headstart-s")  # providers enter themselves
    status, out, _ = run("backbones", "list", "--json")
    found = [each["id"] for each in json.loads(out)]
    assert status == 0
    assert found == ["headstart-s", "onnx:FILE", "hf:ORG/NAME", "timm:NAME", "keras:NAME", "NAME"]
    assert {name.partition(":")[0] for name in found} == {*backbones.PROVIDERS, "NAME"}  # NAME: what was imported
    assert all(name in run("backbones", "list")[1] for name in found)


def test_backbones_show(run):
    status, out, _ = run("backbones", "show", "headstart-s", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["taps"][-1]["name"] == "features"
    assert "features" in run("backbones", "show", "headstart-s")[1]


def test_strict_ends_with_one_and_still_writes(run, photos, tmp_path):
    data = write_photos(tmp_path / "data", 6)
    (data / "disc" / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    status, _, err = run("fit", data, "-o", tmp_path / "m", "--strict")
    assert status == 1
    assert "bad.jpg" in err
    assert (tmp_path / "m" / "config.json").exists()
    assert run("fit", data, "-o", tmp_path / "m")[0] == 0
    assert run("predict", tmp_path / "m", data / "disc", "--strict")[0] == 1
    assert run("evaluate", tmp_path / "m", data, "--strict")[0] == 1
    run_json = json.loads((tmp_path / "m" / "run.json").read_text("utf-8"))
    assert run_json["images"]["quarantined"][0]["path"].endswith("bad.jpg")


WRONG = {
    "no such data": ["fit", "{tmp}/nowhere"],
    "one class": ["fit", "{photos}/train/disc"],
    "unknown backbone": ["fit", "{photos}", "--backbone", "vgg"],
    "no onnx file": ["fit", "{photos}", "--backbone", "onnx:nothing.onnx"],
    "unknown head": ["fit", "{photos}", "--head", "forest"],
    "unknown cut": ["fit", "{photos}", "--cut", "mixed7"],
    "dropout of one": ["fit", "{photos}", "--dropout", "1"],
    "unknown column": ["fit", "{photos}", "--group-by", "scene"],
    "share of two": ["fit", "{photos}/train", "--validation", "2"],
    "mean for the built-in": ["fit", "{photos}", "--mean", "0,0,0"],
    "mean of text": ["fit", "{photos}", "--backbone", "onnx:x", "--mean", "red"],
    "size of text": ["fit", "{photos}", "--backbone", "onnx:x", "--input-size", "big"],
    "unknown runtime": ["fit", "{photos}", "--runtime", "tpu"],
    "bf16 on onnxruntime": ["fit", "{photos}", "--runtime", "onnxruntime", "--precision", "bf16"],
    "output is a file": ["fit", "{photos}", "-o", "{photos}/train/disc/000.jpg"],
    "output holds other things": ["fit", "{photos}", "-o", "{photos}/train"],
    "no model": ["predict", "{tmp}/nowhere", "a.jpg"],
    "model is a data set": ["predict", "{photos}", "a.jpg"],
    "json and csv": ["predict", "{model}", "a.jpg", "--json", "--csv"],
    "evaluate without labels": ["evaluate", "{model}", "{photos}/train/disc"],
    "evaluate nothing": ["evaluate", "{model}", "{tmp}"],
    "verify nothing": ["verify", "{tmp}"],
    "show nothing": ["backbones", "show", "x"],
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_end_with_two_and_one_line(run, name, photos, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [a.format(tmp=tmp_path, photos=photos, model=model_folder) for a in WRONG[name]]
    output = [] if "-o" in arguments or arguments[0] != "fit" else ["-o", tmp_path / "m"]
    status, out, err = run(*arguments, *output)
    assert status == 2, (out, err)
    assert out == ""
    assert err.startswith("headstart: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "m").exists()


def test_only_unreadable_pictures_is_status_two(run, model_folder, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    assert run("predict", model_folder, tmp_path / "bad.jpg")[0] == 2
    assert run("predict", model_folder, tmp_path / "missing.jpg")[0] == 2


def test_names_that_are_not_utf_8_cost_no_model(run, tmp_path):
    """A class folder unzipped on another system, and a broken picture, named in Latin-1."""
    data = write_photos(tmp_path / "data", 6)
    odd = os.fsencode(data / "gu") + b"\xeape"
    (data / "disc").rename(os.fsdecode(odd))
    Path(os.fsdecode(odd + b"/bro\xe7.jpg")).write_bytes(b"no picture")
    status, out, err = run("fit", data, "-o", tmp_path / "m")
    assert status == 0
    assert "classes: gu\\xeape, stripes" in out
    assert "gu\\xeape/bro\\xe7.jpg: Not a picture" in err
    assert (tmp_path / "m" / "report.html").exists()
    found = json.loads(run("evaluate", tmp_path / "m", data, "--json")[1])
    assert found["accuracy"]["count"] == 12
    assert found["unknown_classes"] == []
    assert run("predict", tmp_path / "m", os.fsdecode(odd))[0] == 0
    assert run("report", tmp_path / "m")[0] == 0


def test_names_cannot_steer_the_terminal(run, model_folder, tmp_path):
    folder = write_photos(tmp_path / "d", 1)
    nasty = folder / "disc" / "\x1b[31mred\nline.jpg"
    (folder / "disc" / "000.jpg").rename(nasty)
    _, out, _ = run("predict", model_folder, nasty)
    assert "\x1b" not in out
    assert out.count("\n") == 1


def test_quiet_says_nothing_on_standard_error_and_progress_can_be_asked_for(run, photos, tmp_path):
    assert run("fit", photos, "-o", tmp_path / "m", "--quiet")[2] == ""
    assert "Reading features" in run("fit", photos, "-o", tmp_path / "m", "--progress")[2]


def test_class_names_in_any_script(run, tmp_path):
    data = write_photos(tmp_path / "data", 6, ("écureuil", "馬"))
    status, out, _ = run("fit", data, "-o", tmp_path / "m", "--json")
    assert status == 0
    assert json.loads(out)["classes"] == ["écureuil", "馬"]
    assert json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))["label2id"] == {"écureuil": 0, "馬": 1}
    out = run("predict", tmp_path / "m", data / "馬")[1]
    assert "馬" in out


def test_version_and_help(run):
    assert run("--version")[1].strip() == f"headstart {__version__}"
    out = run("--help")[1]
    for command in ("fit", "predict", "evaluate", "verify", "backbones"):
        assert command in out


def test_every_command_is_documented(request):
    """README or docs show each command, and each has help for itself and for each of its options."""
    root = request.config.rootpath
    text = (root / "README.md").read_text("utf-8") + "".join(p.read_text("utf-8") for p in (root / "docs").glob("*.md"))
    from typer.main import get_command

    def commands(group, prefix=""):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, f"{prefix}{name} ")
            else:
                yield prefix + name, command

    found = dict(commands(get_command(app)))
    assert len(found) >= 5
    for name, command in found.items():
        assert f"headstart {name}" in text, f"headstart {name} is in neither README.md nor docs/"
        assert command.help
        for parameter in command.params:
            if parameter.name != "help":
                assert getattr(parameter, "help", None), (name, parameter.name)
    assert "Exit status" in cli_doc


def test_importing_headstart_imports_no_library_of_work():
    code = "import sys, headstart; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "onnx", "sklearn", "numpy", "onnxruntime", "openvino", "typer", "rich"} & set(loaded)


def test_help_imports_no_library_of_work():
    code = """
import sys
sys.argv = ["headstart", "--help"]
import headstart.cli
try:
    headstart.cli.main()
except SystemExit:
    print("MODULES", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split("MODULES")[1].split()
    assert not {"scipy", "onnx", "sklearn", "onnxruntime", "openvino", "numpy"} & set(loaded)


def test_a_reader_that_has_seen_enough_is_no_error(model_folder, photos):
    command = [sys.executable, "-m", "headstart.cli"]
    code = "from headstart.cli import main; main()"
    predict = subprocess.Popen(
        [sys.executable, "-c", code, "predict", model_folder, photos / "train" / "disc"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    predict.stdout.close()
    err = predict.stderr.read()
    predict.stderr.close()
    predict.wait()
    assert b"Traceback" not in err, (command, err)


@pytest.mark.zoo
def test_a_trained_head_on_the_command_line(run, photos, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra zoo)")
    options = ["--head", "mlp", "--epochs", "4", "--lr", "0.001", "--hidden", "32", "--optimiser", "adam"]
    status, out, _ = run("fit", photos, "-o", tmp_path / "m", *options, "--views", "2", "--augmentation", "flip")
    assert status == 0
    assert "accuracy by epoch, 1 to 4" in out
    assert (tmp_path / "m" / "training.svg").read_text("utf-8").startswith("<svg")
    config = json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))
    assert config["head"] == {
        "kind": "mlp",
        "hidden": 32,
        "dropout": 0.2,
        "optimiser": "adam",
        "rate": 0.001,
        "epochs": 4,
    }
    assert run("verify", tmp_path / "m")[0] == 0


def test_options_of_the_trained_head_need_it(run, photos, tmp_path):
    status, out, err = run("fit", photos, "-o", tmp_path / "m", "--epochs", "3")
    assert (status, out) == (2, "")
    assert err == "headstart: Only the mlp head is trained; give --head mlp, or leave --epochs out.\n"
