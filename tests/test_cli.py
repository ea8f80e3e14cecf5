"""The command line as users meet it: text, JSON, exit status, one line for every mistake."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_photos

from headstart import __version__, backbones
from headstart.cli import __doc__ as cli_doc
from headstart.cli import app, main


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
    assert err == ""
    assert (tmp_path / "model" / "model.onnx").exists()


def test_fit_json_has_the_documented_form(run, photos, tmp_path):
    status, out, _ = run("fit", photos, "-o", tmp_path / "model", "--json")
    found = json.loads(out)
    assert status == 0
    assert set(found) == {
        "model", "classes", "images", "groups", "backbone", "cut", "head", "runtime", "accuracy", "seconds", "cache",
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


def test_evaluate_and_verify(run, model_folder, photos):
    status, out, _ = run("evaluate", model_folder, photos / "validation", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["accuracy"]["count"] == 12
    assert sum(map(sum, found["confusion"])) == 12
    status, out, _ = run("evaluate", model_folder, photos / "validation")
    assert out.startswith("Accuracy  ")
    assert "95% interval" in out
    status, out, _ = run("verify", model_folder, "--json")
    assert status == 0
    assert json.loads(out)["pictures"] == 8
    status, out, _ = run("verify", model_folder, "--runtime", "onnxruntime")
    assert "answers as it should" in out


def test_backbones_list_names_what_load_takes(run):
    backbones.load("headstart-s")  # providers enter themselves
    status, out, _ = run("backbones", "list", "--json")
    found = [each["id"] for each in json.loads(out)]
    assert status == 0
    assert found == ["headstart-s", "onnx:FILE"]
    assert {name.partition(":")[0] for name in found} == set(backbones.PROVIDERS)
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
