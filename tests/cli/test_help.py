"""The help of commands: examples that parse, closed choices, and what a mistake is answered with."""

import re
import shlex

import pytest
from typer.main import get_command

from headstart.cli import app
from headstart.cli.examples import EXAMPLES


def command_of(words):
    command = get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    return command


@pytest.mark.parametrize("example", [example for found in EXAMPLES.values() for example, _ in found])
def test_examples_have_options_that_exist(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(re.sub("^[A-Z_]+=[^ ]+ ", "", example))  # without a variable that is set for it
    assert program == "headstart"
    command = command_of(words)
    command.make_context(words[0] if words else "", words)  # which parses, and runs nothing


def test_every_command_for_people_has_examples_and_shows_them(run):
    names = set(get_command(app).commands) - {"backbones", "download"}
    assert names == set(EXAMPLES)
    out = run("predict", "--help")[1]
    assert "Examples:" in out
    assert "headstart predict model new.jpg --top 3" in out


def test_closed_choices_are_named_and_no_option_takes_a_type(run):
    for name in EXAMPLES:
        out = run(name, "-h")[1]
        assert not re.search("<[a-z ]+>", out), name
    assert "--runtime auto|onnxruntime|openvino|onnxruntime-cuda" in run("fit", "-h")[1]


def test_no_value_is_called_by_its_type(run):
    commands = dict(get_command(app).commands)
    group = commands.pop("backbones")
    names = [[name] for name in commands] + [["backbones", name] for name in group.commands]
    for words in names:
        out = run(*words, "-h")[1]
        assert not re.search(r"^ +(-\w, )?--[\w-]+ (TEXT|X|PATH|A,B,C)\b", out, re.MULTILINE), words
    assert "--optimizer rmsprop|adam|adamw|sgd" in run("fine-tune", "-h")[1]
    assert "--dropout RATE,..." in run("compare", "-h")[1]


def test_the_list_of_commands_shortens_no_line(run):
    assert "..." not in run("-h")[1].partition("Commands:")[2]


def test_who_compares_models_is_led_to_evaluate(run, model_folder, photos):
    err = run("compare", model_folder, model_folder, photos)[2]
    assert "to compare models: headstart evaluate MODEL OTHER DATA" in err
    status, _, err = run("compare", model_folder)
    assert status == 2
    assert "is a model, and compare ranks backbones on images; to compare models: headstart evaluate" in err


def test_mistyped_commands_and_options_are_answered_with_the_right_ones(run):
    assert "Did you mean 'fit'?" in run("fti")[2]
    assert "--backbone" in run("fit", "x", "--bakbone", "y")[2]


def test_a_missing_argument_is_called_by_its_name(run, model_folder):
    assert "Missing argument 'DATA'" in run("evaluate", model_folder)[2]
    assert "Missing argument 'MODEL'" in run("predict")[2]


def test_messages_name_the_way_out(run, photos, model_folder, tmp_path):
    assert (
        "a network of timm is timm:resnet50, one of Keras keras:resnet50"
        in run("fit", photos, "--backbone", "resnet50")[2]
    )
    (tmp_path / "empty").mkdir()
    err = run("predict", model_folder, tmp_path / "empty")[2]
    assert "(it is empty); expected images in it" in err
