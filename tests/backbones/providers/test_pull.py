"""``headstart backbones pull`` of published weights, in a process of its own, as a user runs it (``make zoo``).

Those of timm come from a server that speaks the hub's protocol, well and with lies; those of Keras from its own cache
of files.
"""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from helpers.frameworks import keras_network, legacy_file, needs, timm_network
from helpers.servers import serving

from headstart import backbones
from headstart.backbones import InputOptions

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "timm", "keras", "h5py", "onnxscript")

TIMM, KERAS = "timm:mobilenetv3_small_050", "keras:MobileNet?alpha=0.25"
FILE = "/timm/mobilenetv3_small_050.lamb_in1k/resolve/main/model.safetensors"
CLOSED = "http://127.0.0.1:9"


@dataclass
class Hub:
    """One published file, and how the server misbehaves."""

    content: bytes
    digest: str
    status: int = 0
    code: str = ""  # the hub's own error code
    cut_after: list[int] = field(default_factory=list)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)  # method, range, token


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The file that timm publishes, as far as these tests go."""
    return timm_network(TIMM[5:], 224, tmp_path_factory.mktemp("published"))[1]


@pytest.fixture
def server(published):
    content = published.read_bytes()
    state = Hub(content, hashlib.sha256(content).hexdigest())

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            self.close_connection = True
            byte_range = self.headers.get("Range")
            if self.path == FILE:  # the client asks for more, of itself
                state.requests.append((self.command, byte_range, self.headers.get("Authorization")))
            is_found = self.path == FILE and not state.status
            start = int(re.match(r"bytes=(\d+)-", byte_range)[1]) if byte_range else 0
            body = state.content[start:] if is_found else b""
            self.send_response((206 if start else 200) if is_found else state.status or 404)
            self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(body)))
            if is_found:
                self.send_header("X-Repo-Commit", "c" * 40)
                self.send_header("X-Linked-Size", str(len(state.content)))
                self.send_header("X-Linked-ETag", f'"{state.digest}"')
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            elif state.code or not state.status:
                self.send_header("X-Error-Code", state.code or "EntryNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: state.cut_after.pop(0)] if is_found and state.cut_after else body)

    with serving(Handler) as state.address:
        yield state


def command(folder, *arguments, **variables):
    """``headstart backbones ...`` with caches of its own and no way out but the server."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {
        "HF_HOME": str(folder / "hf"),
        "KERAS_HOME": str(folder / "keras"),
        "HEADSTART_CACHE": str(folder / "cache"),
        "http_proxy": CLOSED,
        "https_proxy": CLOSED,
        "no_proxy": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    completed = subprocess.run(
        [sys.executable, "-m", "headstart", "backbones", *arguments], env=environment, capture_output=True, text=True
    )
    assert "Traceback" not in completed.stderr
    return completed


def pulled(folder, name, *arguments, **variables):
    """What ``pull`` prints as JSON."""
    completed = command(folder, "pull", name, "--json", "--quiet", "--runtime", "onnxruntime", *arguments, **variables)
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr == ""
    return json.loads(completed.stdout)


def error_line(folder, name, **variables):
    """The one line of an error."""
    completed = command(folder, "pull", name, "--quiet", **variables)
    assert (completed.returncode, completed.stdout) == (2, ""), completed.stderr
    assert completed.stderr.count("\n") == 1, completed.stderr
    return completed.stderr


def check_listed(folder, report):
    """``list`` shows what ``pull`` printed, and its graph is there."""
    entry = next(e for e in json.loads(command(folder, "list", "--json").stdout) if e["id"] == report["id"])
    for key in ("sha256", "licence", "bytes", "speed"):
        assert entry[key] == report[key]
    assert report["speed"]["pictures_per_second"] > 0
    assert (report["speed"]["runtime"], report["speed"]["precision"]) == ("onnxruntime", "fp32")


def test_timm_weights_are_fetched_once_and_are_those_of_the_file(server, published, tmp_path):
    address = {"HF_ENDPOINT": server.address, "HF_TOKEN": "hf_secret"}
    report = pulled(tmp_path, TIMM, **address)
    assert (report["id"], report["licence"]) == (TIMM, "apache-2.0")
    assert {token for *_, token in server.requests} == {"Bearer hf_secret"}
    assert [method for method, *_ in server.requests].count("GET") == 1
    check_listed(tmp_path, report)
    assert report["sha256"] == backbones.load(TIMM, options=InputOptions(weights=str(published))).sha256
    asked = len(server.requests)
    assert pulled(tmp_path, TIMM, HF_HUB_OFFLINE="1")["sha256"] == report["sha256"]
    assert len(server.requests) == asked


def test_a_broken_download_is_tried_again(server, published, tmp_path):
    server.cut_after = [5000]
    report = pulled(tmp_path, TIMM, HF_ENDPOINT=server.address)
    assert [method for method, *_ in server.requests].count("GET") == 2
    assert report["sha256"] == backbones.load(TIMM, options=InputOptions(weights=str(published))).sha256


@pytest.mark.parametrize(("status", "code"), [(404, "RepoNotFound"), (404, ""), (401, "GatedRepo"), (403, "")])
def test_refusals_of_the_hub_are_one_line(server, tmp_path, status, code):
    server.status, server.code = status, code
    line = error_line(tmp_path, TIMM, HF_ENDPOINT=server.address)
    assert line.startswith(f"headstart: The weights of {TIMM} are not in the cache and cannot be fetched (")
    assert line.endswith("or give the file with --weights FILE.\n")


def test_bytes_other_than_the_announced_ones_are_never_used(server, tmp_path):
    good = server.content
    server.content = good[:-4] + b"\x00\x00\x80\x3f"
    line = error_line(tmp_path, TIMM, HF_ENDPOINT=server.address)
    assert f"another hash than the {server.digest[:12]}... announced" in line
    (file,) = (tmp_path / "hf").rglob(server.digest)
    assert str(file) in line
    file.unlink()
    server.content = good
    assert pulled(tmp_path, TIMM, HF_ENDPOINT=server.address)["id"] == TIMM


def test_a_published_file_that_does_not_fit_is_one_line(server, tmp_path):
    server.content = b"no weights at all"
    server.digest = hashlib.sha256(server.content).hexdigest()
    assert "cannot be fetched" in error_line(tmp_path, TIMM, HF_ENDPOINT=server.address)


def test_keras_uses_its_own_cache_of_files(tmp_path):
    network = keras_network("MobileNet", 224, alpha=0.25)
    models = tmp_path / "keras" / "models"
    models.mkdir(parents=True)
    file = legacy_file(network, models / "mobilenet_2_5_224_tf_no_top.h5")
    report = pulled(tmp_path, KERAS)
    assert (report["id"], report["licence"]) == (KERAS, "unknown")
    check_listed(tmp_path, report)
    (stored,) = (json.loads(path.read_text("utf-8")) for path in (tmp_path / "cache").rglob("backbone.json"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"mobilenet_2_5_224_tf_no_top.h5 (sha256 {digest})" in stored["source"]
    note = f"Keras publishes no hash of mobilenet_2_5_224_tf_no_top.h5; that of the file received is sha256 {digest}."
    assert note in stored["notes"]
    assert report["sha256"] == backbones.load(KERAS, options=InputOptions(weights=str(file))).sha256
    file.unlink()
    assert pulled(tmp_path, KERAS)["sha256"] == report["sha256"]


def test_keras_files_of_another_hash_are_not_used(tmp_path):
    """keras.applications knows the hash of this one; a new download is tried, and nothing answers."""
    models = tmp_path / "keras" / "models"
    models.mkdir(parents=True)
    (models / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"other weights")
    line = error_line(tmp_path, "keras:VGG16")
    assert line.startswith("headstart: The weights of keras:VGG16 are not in the cache and cannot be fetched (")
