"""The Dockerfile: what it says, and its steps, run in an empty environment since there may be no Docker here."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers.http_clients import exchange
from helpers.photos import ROOT

from .conftest import wait_until

TOKEN = "a token of mine"
USER = 10001


def instructions():
    """The instructions of the Dockerfile, as (name, rest), by stage."""
    stages = []
    for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            if name == "FROM":
                stages.append([])
            stages[-1].append((name, rest))
    return stages


def test_it_is_no_root_and_copies_no_more_than_it_needs():
    build, final = instructions()
    assert ("USER", f"{USER}:{USER}") in final
    assert [rest for name, rest in final if name in ("COPY", "RUN", "ADD")] == [
        "--from=build /opt/headstart /opt/headstart"
    ]
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    copied = [word for name, rest in build if name == "COPY" for word in rest.split()[:-1]]
    assert ignored[0] == "*"
    assert {f"!{word}" for word in copied} == {line for line in ignored if line.startswith("!")}
    assert "HEADSTART_TOKEN" not in dict(build)  # no default in the image


def test_compose_demands_a_token_and_listens_on_this_machine():
    text = (ROOT / "compose.yaml").read_text("utf-8")
    assert re.search(r"HEADSTART_TOKEN: \$\{HEADSTART_TOKEN:\?", text)
    assert '"127.0.0.1:8000:8000"' in text
    assert "read_only: true" in text


def is_for_all(python):
    """Whether any user may run a Python, and it is one that can be used."""
    version = subprocess.run([python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True)
    return b"True" in version.stdout and all(parent.stat().st_mode & 1 for parent in python.resolve().parents)


@pytest.fixture(scope="module")
def image():
    """A folder that stands for the root of the image, after the steps of its first stage."""
    root = Path(tempfile.mkdtemp(prefix="serve-image-"))
    root.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "PROXY" in name.upper()}
    environment = {**kept, "PATH": f"{root}/usr:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/root")}
    (root / "usr").mkdir()
    pythons = [sys.executable, *filter(None, [shutil.which("python3", path="/usr/local/bin:/usr/bin")])]
    (root / "usr" / "python").symlink_to(next(filter(is_for_all, map(Path, pythons)), Path(sys.executable)).resolve())
    for name, rest in instructions()[0]:
        rest = rest.replace("/opt/headstart", f"{root}/opt/headstart")
        if name == "ARG":
            key, _, value = rest.partition("=")
            environment[key] = value
        elif name == "WORKDIR":
            folder = root / rest.lstrip("/")
            folder.mkdir(parents=True)
        elif name == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                path = ROOT / source
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, folder / (target if path.is_dir() else source))
        elif name == "RUN":
            done = subprocess.run(rest, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode and "pip" in rest and "onnection" in done.stderr:
                pytest.skip("needs a package registry")
            assert done.returncode == 0, done.stderr
    yield root
    shutil.rmtree(root)


def command(image, port, *words):
    """The entry point of the image with its environment, on another port, as its user where the test may be others."""
    final = instructions()[1]
    paths = {"/opt/headstart": f"{image}/opt/headstart", "/tmp/headstart": "/proc/headstart"}  # nothing can be written
    environment = {}
    for name, rest in final:
        for old, new in paths.items():
            rest = rest.replace(old, new)
        if name == "ENV":
            key, _, value = rest.partition("=")
            environment[key] = value
    entry = json.loads(dict(final)["ENTRYPOINT"])
    entry[entry.index("8000")] = str(port)
    entry[0] = shutil.which(entry[0], path=environment["PATH"])
    is_other = os.getuid() == 0 and is_for_all(image / "usr" / "python")
    user = {"user": USER, "group": USER, "extra_groups": []} if is_other else {}
    return [*entry, *words], {"env": environment, "cwd": "/", **user}


@pytest.mark.slow
def test_its_steps_make_a_server_that_demands_a_token(image, model_folder, files):
    model = image / "models" / "model"
    shutil.copytree(model_folder, model)
    subprocess.run(["chmod", "-R", "a+rX", image], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words, settings = command(image, port, model)
    refused = subprocess.run(words, capture_output=True, text=True, **settings)
    assert refused.returncode == 2
    assert "HEADSTART_TOKEN" in refused.stderr

    settings["env"] |= {"HEADSTART_TOKEN": TOKEN}
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)
    try:
        check = dict(instructions()[1])["HEALTHCHECK"]
        health = json.loads(check[check.index("[") :].replace("8000", str(port)))
        health[0] = f"{image}/opt/headstart/bin/python"
        assert started.stdout.readline() == f"http://0.0.0.0:{port}\n"
        wait_until(lambda: subprocess.run(health, capture_output=True, **settings).returncode == 0)
        assert exchange(port, "POST", "/predict", files[0])[0] == 401
        status, _, body = exchange(port, "POST", "/predict", files[0], Authorization=f"Bearer {TOKEN}")
        assert status == 200
        assert {entry["label"] for entry in json.loads(body)} == {"disc", "stripes"}
        started.send_signal(signal.SIGTERM)
        _, errors = started.communicate(timeout=30)
        assert started.returncode == 0
        assert "Traceback" not in errors
    finally:
        started.kill()
        started.communicate()
