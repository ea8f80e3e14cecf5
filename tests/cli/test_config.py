"""Options from a configuration file and from the environment."""

import json
import os
import tomllib

import pytest
from helpers.photos import write_photos

from headstart.cli import config

FIT = '[fit]\nbackbone = "headstart-s"\nreport = false\ncoverage = 0.8\nthreshold = ["disc=0.3", "stripes=0.4"]\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run_info(model):
    return json.loads((model / "run.json").read_text("utf-8"))


def test_options_come_from_the_arguments_then_the_environment_then_the_file(run, photos, here, monkeypatch):
    (here / config.FILE).write_text(FIT + "seed = 1\n")
    monkeypatch.setenv("HEADSTART_FIT_SEED", "2")
    monkeypatch.setenv("HEADSTART_FIT_FALSE_ALARMS", "0.2")
    status, _, err = run("fit", photos, "-o", "m", "--coverage", 0.9)
    assert status == 0
    assert err.splitlines()[0] == (
        "note: options from headstart.toml: backbone, report, threshold; from the environment: "
        "HEADSTART_FIT_FALSE_ALARMS, HEADSTART_FIT_SEED"
    )
    info, settings = run_info(here / "m"), json.loads((here / "m" / "config.json").read_text("utf-8"))
    assert info["backbone"]["id"] == "headstart-s"
    assert info["seed"] == 2
    assert (settings["coverage"], settings["false_alarms"]) == (0.9, 0.2)
    assert settings["decision"]["kind"] == "thresholds"
    assert not (here / "m" / "report.html").exists()
    assert info["options_from"] == {
        "backbone": "headstart.toml",
        "report": "headstart.toml",
        "threshold": "headstart.toml",
        "false-alarms": "HEADSTART_FIT_FALSE_ALARMS",
        "seed": "HEADSTART_FIT_SEED",
    }


def test_without_any_nothing_is_said_and_nothing_recorded(run, photos, here):
    status, _, err = run("fit", photos, "-o", "m", "--backbone", "headstart-s", "--no-report")
    assert (status, "options from" in err) == (0, False)
    assert "options_from" not in run_info(here / "m")


def test_a_file_can_be_named_and_then_the_one_of_the_working_folder_is_not_read(run, photos, here):
    (here / config.FILE).write_text("[fit]\nseed = 1\n")
    (here / "other.toml").write_text(FIT)
    status, _, err = run("fit", photos, "-o", "m", "--config", "other.toml")
    assert status == 0
    assert "options from other.toml: backbone, report, coverage, threshold" in err
    assert run_info(here / "m")["seed"] == 0
    assert run("fit", photos, "-o", "m", "--config=other.toml", "--dry-run")[0] == 0


def test_a_file_in_the_data_is_never_read(run, tmp_path, monkeypatch):
    data = write_photos(tmp_path / "data", 8)
    (data / config.FILE).write_text('[fit]\noutput = "../elsewhere"\nbackbone = "nonsense"\n')
    monkeypatch.chdir(tmp_path)
    status, _, err = run("fit", "data", "-o", "m", "--backbone", "headstart-s", "--no-report")
    assert (status, "options from" in err) == (0, False)
    for folder, named in ((data, "."), (data / "disc", "..")):
        monkeypatch.chdir(folder)
        (folder / config.FILE).write_text('[fit]\nbackbone = "nonsense"\n')
        arguments = ("fit", named, "-o", tmp_path / "m", "--backbone", "headstart-s", "--no-report", "--overwrite")
        status, _, err = run(*arguments)
        assert status == 0
        assert "headstart.toml lies in a folder that is named here, and is not read" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fit]\nbakbone = 'x'", "[fit] has no option 'bakbone' (did you mean backbone?)"),
        ("[fti]\nseed = 1", "fti is no command (did you mean fit?)"),
        ("seed = 1", "seed is no command"),
        ("[backbones.lst]\njson = true", "backbones lst is no command (did you mean list?)"),
        ("[fit]\nseed = [1]", "seed of [fit] cannot be used; expected one text, number or true or false"),
        ("[fit]\nthreshold = 'a=0.1'", "threshold of [fit] cannot be used; expected a list of values"),
        ("[fit]\nseed = 2020-01-01", "seed of [fit] cannot be used"),
        ("[fit]\nseed = true", "seed of [fit] takes a value, not true or false"),
        ("[fit]\nconfig = 'x'", "[fit] has no option 'config'"),
        ("[fit\n", "is not TOML"),
        ("x = " + "[" * 5000, "is not TOML"),
        ("#" * 70_000, "has more than 65,536 bytes"),
    ],
)
def test_mistakes_in_a_file_are_one_line(run, photos, here, text, message):
    (here / config.FILE).write_text(text)
    status, out, err = run("fit", photos, "-o", "m")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_values_of_a_wrong_kind_are_told_as_those_of_arguments(run, photos, here, monkeypatch):
    (here / config.FILE).write_text('[fit]\nseed = "many"\n')
    status, _, err = run("fit", photos, "-o", "m")
    assert (status, "'--seed': 'many' is not a whole number" in err) == (2, True)
    (here / config.FILE).unlink()
    monkeypatch.setenv("HEADSTART_FIT_SEED", "some")
    assert run("fit", photos, "-o", "m")[0] == 2


def test_a_file_that_is_missing_or_a_pipe_is_said(run, photos, here):
    assert "cannot be read" in run("fit", photos, "--config", "nothing.toml")[2]
    os.mkfifo(here / "pipe.toml")
    assert "cannot be read" in run("fit", photos, "--config", "pipe.toml")[2]


def test_other_commands_take_options_too_and_help_does_not_name_variables(run, model_folder, photos, here, monkeypatch):
    (here / config.FILE).write_text("[predict]\ntop = 2\n[backbones.list]\njson = true\n")
    image = next((photos / "validation" / "disc").iterdir())
    assert run("predict", model_folder, image)[1].count("%") == 2
    monkeypatch.setenv("HEADSTART_PREDICT_JSON", "true")
    assert len(json.loads(run("predict", model_folder, image)[1])["classes"]) == 2
    assert isinstance(json.loads(run("backbones", "list")[1]), list)
    status, out, _ = run("fit", "--help")
    assert (status, "HEADSTART_" in out) == (0, False)


def test_the_example_in_the_documentation_is_valid(run, photos, here):
    from helpers.photos import ROOT

    text = (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8")
    example = text.split("```toml\n")[1].split("```")[0]
    assert tomllib.loads(example)
    (here / config.FILE).write_text(example)
    assert run("fit", photos, "--dry-run")[0] == 0
