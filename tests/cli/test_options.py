"""What all commands share: exit statuses, one line for every mistake, help in groups, completion."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers.photos import write_photos
from typer.main import get_command

from headstart import __version__
from headstart.cli import __doc__ as cli_doc
from headstart.cli import app
from headstart.cli.options import exit_status

HEADSTART = [sys.executable, "-m", "headstart"]

MISTAKES = {
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
    "model is a dataset": ["predict", "{photos}", "a.jpg"],
    "json and csv": ["predict", "{model}", "a.jpg", "--json", "--csv"],
    "evaluate without labels": ["evaluate", "{model}", "{photos}/train/disc"],
    "evaluate nothing": ["evaluate", "{model}", "{tmp}"],
    "csv of several models": ["evaluate", "{model}", "{model}", "{photos}", "--csv"],
    "verify nothing": ["verify", "{tmp}"],
    "fine-tune what cannot be trained": ["fine-tune", "{photos}", "--backbone", "onnx:x.onnx", "-o", "{tmp}/m"],
    "show nothing": ["backbones", "show", "x"],
    "seed below zero": ["fit", "{photos}", "--seed", "-1"],
    "accuracy that is no number": ["evaluate", "{model}", "{photos}", "--min-accuracy", "nan"],
    "output whose name is too long": ["fit", "{photos}", "-o", "x" * 300],
    "model whose name is too long": ["predict", "x" * 300, "a.jpg"],
    "report over a photograph": ["report", "{model}", "-o", "{photos}/train/disc/000.jpg"],
    "storage that needs another package": ["fit", "s3://bucket/data.zip"],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_with_two_and_one_line(run, name, photos, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [a.format(tmp=tmp_path, photos=photos, model=model_folder) for a in MISTAKES[name]]
    output = [] if "-o" in arguments or arguments[0] != "fit" else ["-o", tmp_path / "m"]
    status, out, err = run(*arguments, *output)
    assert status == 2, (out, err)
    assert out == ""
    assert err.startswith("headstart: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "m").exists()


def test_wrong_usage_is_status_two(run):
    for arguments in (["fit"], ["fit", "data", "--no-such-option"], ["no-such-command"], ["fit", "d", "--views", "0"]):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["predict", "m", "x.jpg", "--top", "a"], "Invalid value for '--top': 'a' is not a whole number."),
        (["predict", "m", "x.jpg", "--top", "0"], "Invalid value for '--top': 0 is not in the range x>=1."),
        (["studio", "x", "--port", "1.5"], "Invalid value for '--port': '1.5' is not a whole number."),
        (["fit", "x", "--views", "a"], "Invalid value for '--views': 'a' is not a whole number."),
        (["fit", "x", "--coverage", "most"], "Invalid value for '--coverage': 'most' is not a number."),
        (["compare", "x", "--time-limit", "a"], "Invalid value for '--time-limit': 'a' is not a number."),
        (["evaluate", "m"], "Missing argument 'DATA'."),
    ],
)
def test_a_value_that_cannot_be_used_is_told_with_its_option(run, arguments, problem):
    assert run(*arguments)[2].endswith(f"Error: {problem}\n")


def test_a_reader_that_closes_the_pipe_is_status_zero(model_folder, photos):
    """``headstart predict ... | head -1``: with a pipe that is closed before, and while, it is written to."""
    for images in ([photos / "train" / "disc"], [photos] * 40):
        process = subprocess.Popen(
            [*HEADSTART, "predict", model_folder, *images, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if len(images) > 1:
            process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 0
        assert err == b""


def test_files_are_written_whole_though_the_reader_closes_the_pipe(model_folder, photos, tmp_path):
    """``headstart check photos --fix-list fixed.csv | head``, and the like."""
    data = shutil.copytree(photos, tmp_path / "photos")
    table, copies, model = data / "fixed.csv", tmp_path / "sorted", tmp_path / "model"
    for command in (
        ["check", data, "--fix-list", table, "--backbone", "headstart-s"],
        ["predict", model_folder, photos, "--copy-to", copies],
        ["fit", photos, "--backbone", "headstart-s", "-o", model],
    ):
        process = subprocess.Popen([*HEADSTART, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait() == 0
        assert b"ipe" not in err
    heard, heard_not = os.pipe()  # as ``2>&1 | head`` leaves it: no note can be written either
    os.close(heard)
    command = [*HEADSTART, "fit", photos, "--backbone", "headstart-s", "-o", tmp_path / "noted", "--progress"]
    assert subprocess.run(command, stdout=heard_not, stderr=heard_not).returncode == 0
    os.close(heard_not)
    assert (tmp_path / "noted" / "report.html").is_file()
    assert len(table.read_text().splitlines()) == 1 + 40
    assert len([file for file in copies.rglob("*") if file.is_file()]) == 40
    assert (model / "report.html").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_an_interrupt_is_status_130_in_one_line(tmp_path):
    data = write_photos(tmp_path / "data", 300)
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [*HEADSTART, "fit", data, "-o", tmp_path / "m", "--views", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "HEADSTART_CACHE": str(cache)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells ignore it for jobs in the background
    )
    while not (cache / "features-v2.sqlite").exists():  # the command has begun to read images
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == b""
    assert err.endswith(b"headstart: interrupted.\n")
    assert b"Traceback" not in err
    assert not (tmp_path / "m").exists()


def test_an_interrupt_while_the_program_is_imported_is_status_130_in_one_line():
    code = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "headstart.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from headstart.__main__ import main
main()
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (completed.returncode, completed.stdout, completed.stderr) == (130, "", "headstart: interrupted.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_ends_the_processes_of_a_sample_too_and_leaves_no_half_of_it(number, status, tmp_path):
    process = subprocess.Popen(
        [*HEADSTART, "sample", "horses-or-humans", tmp_path / "sample", "--train", "2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not any(tmp_path.rglob("*.jpg")):
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)  # which waits for every process that holds the pipe
    assert process.returncode == status
    assert b"Traceback" not in err
    assert not (tmp_path / "sample").exists()
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_a_command_at_once_and_without_a_traceback(number, status, tmp_path):
    code = """
import sys, threading, time
from headstart.cli import main
from headstart.data import rendered

def render(*_, **__):
    threading.Thread(target=time.sleep, args=(600,)).start()  # the interpreter waits for it as it ends
    print("begun", flush=True)
    time.sleep(600)

rendered.render = render
sys.argv = ["headstart", "sample", "horses-or-humans", "sample"]
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        assert process.stderr.readline().startswith("headstart: ")
        process.send_signal(number)
        _, err = process.communicate()
    finally:
        process.kill()
    assert (process.returncode, err) == (status, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["backbones", "list"]])
def test_output_that_cannot_be_written_is_status_two_and_a_closed_one_no_error(arguments, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = " ".join([*HEADSTART, *arguments])
    full = subprocess.run(["sh", "-c", f"{command} >/dev/full"], capture_output=True, text=True)
    assert (full.returncode, full.stderr) == (2, "headstart: No space left on device.\n")
    for redirection in (">&-", "2>&-", ">&- 2>&-"):
        closed = subprocess.run(["sh", "-c", f"{command} {redirection}"], capture_output=True, text=True)
        assert (closed.returncode, closed.stderr) == (0, "")


def test_a_full_disk_is_named_with_what_to_do(capsys):
    error = OSError(errno.ENOSPC, "No space left on device", "/disk/features")
    assert exit_status(error) == 2
    said = "headstart: /disk/features: No space left on device; make room, and run the same command again.\n"
    assert capsys.readouterr().err == said


def test_without_a_home_folder_features_are_computed_and_not_stored(run, photos, tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("HEADSTART_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("headstart.machine.Path.home", no_home)
    status, _, err = run("fit", photos, "-o", tmp_path / "m", "--no-report")
    assert status == 0
    assert "this user has no home folder: set HEADSTART_CACHE to a writable folder; features are computed" in err
    assert run("backbones", "list")[0::2] == (
        2,
        "headstart: this user has no home folder: set HEADSTART_CACHE to a writable folder.\n",
    )


def test_onnxruntime_leaves_no_device_id_in_the_home_folder(model_folder, photos, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [*HEADSTART, "predict", model_folder, photos / "train" / "disc", "--runtime", "onnxruntime"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    code = (
        "import os, sys, headstart as hs\n"
        "hs.Predictor.load(sys.argv[1], hs.Compute('onnxruntime')).predict(sys.argv[2:])\n"
        "assert 'ORT_DISABLE_TELEMETRY' not in os.environ"
    )
    image = photos / "train" / "disc" / "000.jpg"
    subprocess.run([sys.executable, "-c", code, model_folder, image], env=environment, check=True)
    assert [path for path in home.rglob("*") if "Microsoft" in path.parts] == []


def commands(group=None, prefix=""):
    """Yield the name of every command and the command."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_version_and_help(run):
    assert run("--version")[1].strip() == f"headstart {__version__}"
    out = run("--help")[1]
    command_list = out.split("Commands:\n")[1].split("\n\n")[0]
    names = [line.split()[0] for line in command_list.splitlines()]
    assert names[:4] == ["fit", "predict", "evaluate", "check"]
    assert {name.split()[0] for name, _ in commands()} == set(names)
    assert run("-h")[1] == out


def test_options_of_fit_are_in_groups_with_the_most_used_first(run):
    out = run("fit", "--help")[1]
    titles = [line for line in out.splitlines() if line and not line.startswith(" ") and line.endswith(":")]
    assert titles == [
        "Arguments:",
        "Most used:",
        "Data:",
        "Backbone:",
        "Head:",
        "Evaluation:",
        "Run:",
        "Options:",
        "Examples:",
    ]
    most_used = out.split("Most used:")[1].split("\n\n")[0]
    assert sum(line.startswith("  -") for line in most_used.splitlines()) == 9
    assert "--fine-tune" not in out
    assert max(map(len, out.splitlines())) <= 120


def test_every_command_and_option_has_help():
    assert len(dict(commands())) >= 15
    for name, command in commands():
        assert command.help, name
        assert command.help.endswith("."), name
        for parameter in command.params:
            if parameter.name != "help":
                assert getattr(parameter, "help", None), (name, parameter.name)


def test_exit_statuses_are_documented():
    assert "Exit statuses: 0 done" in cli_doc


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_completion_can_be_installed(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path)}
    # The shell is recognised by the name of the parent process; `:` keeps bash from being replaced by the command.
    command = ["bash", "-c", '"$0" -m headstart --show-completion && :', sys.executable]
    script = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "complete" in script.stdout
    # What the shell runs when the tab key is pressed.
    completion = {
        **environment,
        "_HEADSTART_COMPLETE": "complete_bash",
        "COMP_WORDS": "headstart fi",
        "COMP_CWORD": "1",
    }
    program = os.path.join(os.path.dirname(sys.executable), "headstart")  # noqa: PTH118, PTH120
    completed = subprocess.run([program], env=completion, capture_output=True, text=True)
    assert completed.stdout.split() == ["fit", "fine-tune"]


def test_importing_headstart_imports_no_other_library():
    code = "import sys, headstart; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "onnx", "sklearn", "numpy", "onnxruntime", "openvino", "typer", "rich"} & set(loaded)


def test_help_imports_no_library_for_the_work():
    code = """
import sys
sys.argv = ["headstart", "fit", "--help"]
import headstart.cli
try:
    headstart.cli.main()
except SystemExit:
    print("MODULES", *sys.modules)
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = completed.stdout.split("MODULES")[1].split()
    assert not {"scipy", "onnx", "sklearn", "onnxruntime", "openvino", "numpy", "rich"} & set(loaded)


def test_a_second_fit_imports_only_what_it_needs(photos, tmp_path):
    """Its features are in the cache: no network of the backbone is run, and no image has several labels."""
    code = """
import sys
import headstart.cli
try:
    headstart.cli.main()
finally:
    print("MODULES", *sys.modules)
"""
    environment = {**os.environ, "HEADSTART_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, "fit", photos, "-o", tmp_path / "model", "--runtime", "openvino"]
    loaded = []
    for _ in range(2):
        completed = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        loaded.append({*completed.stdout.split("MODULES")[1].split()})
    assert "openvino" in loaded[0]
    needless = {
        *("openvino", "headstart.classifier.fit_labels", "headstart.classifier.estimator"),
        *("headstart.report.labels.view", "headstart.classifier.embed_sharded", "headstart.scale.run"),
        "headstart.backbones.providers.hub",
    }
    assert needless & loaded[1] == set()
    assert "openvino" in json.loads((tmp_path / "model" / "run.json").read_text("utf-8"))["versions"]


def test_it_runs_from_a_source_tree_whose_metadata_is_not_installed(photos, tmp_path):
    """A checkout on PYTHONPATH: the distribution "headstart" is not installed, and no code needs it."""
    code = f"""
import sys
from importlib import metadata
real = metadata.version
def version(name):
    if name == "headstart":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
sys.argv = ["headstart", "fit", {str(photos)!r}, "-o", {str(tmp_path / "m")!r}]
from headstart.cli import main
main()
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "m" / "report.html").exists()
