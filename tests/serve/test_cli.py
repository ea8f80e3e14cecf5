"""``headstart serve`` as a process."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.http_clients import connect, exchange, parse, read_all

from .conftest import wait_until

HEADSTART = Path(sys.executable).with_name("headstart")


@contextmanager
def process(*words, **environment):
    """Run ``headstart serve`` until it is ready; yield the process and its port."""
    command = [HEADSTART, "serve", *map(str, words), "--port", "0", "--runtime", "onnxruntime"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        line = started.stdout.readline()
        assert line.startswith("http://"), started.communicate()
        port = int(line.strip().rpartition(":")[2])
        wait_until(lambda: exchange(port, path="/health")[0] == 200)
        yield started, port
    finally:
        started.kill()
        started.communicate()


def fails(*words):
    completed = subprocess.run([HEADSTART, "serve", *map(str, words)], capture_output=True, text=True)
    assert completed.returncode == 2, completed
    assert completed.stdout == ""
    assert completed.stderr.count("\n") == 1
    return completed.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_prediction_loses_no_answer(model_folder, files, number):
    with process(model_folder) as (started, port):
        whole, late = connect(port), connect(port)
        request = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        whole.sendall(request % len(files[0]) + files[0])
        late.sendall(request % len(files[0]) + files[0][:-10])  # its end comes after the signal
        time.sleep(0.3)
        started.send_signal(number)
        time.sleep(0.5)
        late.sendall(files[0][-10:])
        for connection in (whole, late):
            with connection:
                assert parse(read_all(connection))[0] == 200
        output, errors = started.communicate(timeout=30)
        assert started.returncode == 0
        assert output == ""
        assert "is ready" in errors
        assert "Traceback" not in errors


def test_beyond_this_machine_it_wants_a_token_or_a_word(model_folder):
    assert "give --token (or HEADSTART_TOKEN), or --insecure" in fails(model_folder, "--host", "0.0.0.0")
    with process(model_folder, "--host", "0.0.0.0", HEADSTART_TOKEN="a token of mine") as (_, port):
        assert exchange(port, path="/models")[0] == 401
        assert exchange(port, path="/models", Authorization="Bearer a token of mine")[0] == 200


def test_what_cannot_be_served_is_an_error_in_one_line(model_folder, photos):
    assert "photos" in fails(photos)
    assert "are both named model" in fails(model_folder, model_folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        error = fails(model_folder, "--port", taken.getsockname()[1])
    assert "Address already in use" in error


def test_without_the_extra_it_says_how_to_install_it(model_folder):
    program = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['headstart', 'serve', sys.argv[1]]; "
        "from headstart.__main__ import main; main()"
    )
    completed = subprocess.run([sys.executable, "-c", program, model_folder], capture_output=True, text=True)
    assert completed.returncode == 2
    assert "pip install 'headstart[serve]'" in completed.stderr


def test_the_name_of_the_token_is_told_and_not_the_token(model_folder):
    with process(model_folder, HEADSTART_SERVE_TOKEN="a token of mine") as (started, _):
        started.terminate()
        _, errors = started.communicate(timeout=30)
    assert "HEADSTART_SERVE_TOKEN" in errors
    assert "a token of mine" not in errors
