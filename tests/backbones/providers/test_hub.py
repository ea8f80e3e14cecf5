"""hf:ORG/NAME against a server that speaks the hub's protocol: well, slowly, not at all, and with lies."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from urllib.parse import unquote

import numpy as np
import onnx
import pytest
from helpers.graphs import inner, network, saved
from helpers.servers import serving
from huggingface_hub import constants, file_download

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.backbones.providers import hub
from headstart.cli import main
from headstart.errors import BackboneError, OptionError
from headstart.features.runtime import load_graph
from headstart.machine import cache_folder

COMMIT, LATER = "a" * 40, "b" * 40
CONFIG = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "size": {"height": 32, "width": 32}}
FULL = f"hf:org/net@{COMMIT}"


@dataclass
class Hub:
    """The repository org/net, and how the server misbehaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = COMMIT
    licence: str = "apache-2.0"
    status: int = 0  # of the listing
    code: str = ""  # the hub's own error code
    told: dict[str, bytes] = field(default_factory=dict)  # listed with the hash of these bytes instead
    cut_after: list[int] = field(default_factory=list)
    stall: int = 0
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)


def listing(state):
    siblings = []
    for name, content in state.files.items():
        content = state.told.get(name, content)
        one = {
            "rfilename": name,
            "size": len(content),
            "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        }
        if name.endswith((".onnx", "_data")):
            one["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        siblings.append(one)
    return {"id": "org/net", "sha": state.commit, "siblings": siblings, "cardData": {"license": state.licence},
            "tags": [], "downloads": 0, "likes": 0, "private": False}  # fmt: skip


@pytest.fixture
def server(tmp_path, monkeypatch):
    state = Hub({
        "onnx/model.onnx": network().SerializeToString(),
        "preprocessor_config.json": json.dumps(CONFIG).encode(),
        "config.json": b'{"id2label": {"0": "cat"}}',
        "onnx/model_quantized.onnx": b"not this one",
    })  # fmt: skip

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            self.send_header("Connection", "close")  # else the client may use it again just as it ends
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.close_connection = True
            state.asked.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
            if self.path.startswith("/api/models/"):
                if state.status:
                    self.answer(state.status, b"{}", **({"X_Error_Code": state.code} if state.code else {}))
                else:
                    self.answer(200, json.dumps(listing(state)).encode(), Content_Type="application/json")
                return
            name = unquote(re.fullmatch(r"/org/net/resolve/[0-9a-f]{40}/(.*)", self.path)[1])
            content = state.files[name]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            body = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Connection", "close")
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            cut = state.cut_after.pop(0) if state.cut_after and name.endswith(".onnx") else len(body)
            try:
                self.wfile.write(body[:cut])
                self.wfile.flush()
                if cut < len(body) and state.stall:
                    threading.Event().wait(state.stall)
            except OSError:
                pass

    with serving(Handler) as address:
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # what is lost at most when a connection breaks
        yield state


def test_it_is_fetched_once_pinned_and_described(server, monkeypatch):
    found = backbones.load("hf:org/net")
    assert (found.id, found.licence) == (FULL, "apache-2.0")
    assert COMMIT in found.source
    assert (found.preprocess.resize, found.preprocess.crop, found.notes) == ("squash", 1.0, ())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    scaled = (pixels / 255 - CONFIG["image_mean"]) / CONFIG["image_std"]
    wanted = inner(network(), "pooled", scaled.transpose(0, 3, 1, 2).astype(np.float32)).reshape(2, -1)
    last = load_graph(found.graph, runtime="onnxruntime").run(pixels)[found.taps[-1].name]
    np.testing.assert_allclose(last, wanted, rtol=1e-3, atol=1e-4)
    asked = len(server.asked)
    assert not list((cache_folder() / "hub").rglob("*.onnx"))
    assert not any("quantized" in path for path, *_ in server.asked)
    server.commit = LATER
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("hf:org/net", FULL):
        assert backbones.load(name, taps=(found.taps[0].name,)) == found
    assert len(server.asked) == asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert hub.load_hub("org/net", InputOptions(), (), renew=True).id == f"hf:org/net@{LATER}"
    assert backbones.load("hf:org/net").id == f"hf:org/net@{LATER}"


def test_options_and_cuts_are_kept_apart(server):
    plain, other = backbones.load("hf:org/net"), backbones.load("hf:org/net", options=InputOptions(crop=0.5))
    assert (plain.preprocess.crop, other.preprocess.crop) == (1.0, 0.5)
    assert "c1" in [tap.name for tap in backbones.load("hf:org/net", taps=("c1",)).taps]
    with pytest.raises(OptionError, match="leave --weights out"):
        backbones.load("hf:org/net", options=InputOptions(weights="x"))


def test_a_token_is_sent_to_the_hub(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    backbones.load("hf:org/net")
    assert {token for *_, token in server.asked} == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "has no repository 'org/net'"),
        (404, "RevisionNotFound", "has no revision 'main'; expected a branch, a tag"),
        (401, "", r"refuses hf:org/net \(status 401\).*HF_TOKEN"),
        (403, "", r"refuses hf:org/net \(status 403\).*HF_TOKEN"),
        (403, "GatedRepo", "is gated: accept its terms"),
        (418, "", "answered 418"),
    ],
)
def test_refusals_of_the_hub_are_one_line(server, status, code, message):
    server.status, server.code = status, code
    with pytest.raises(BackboneError, match=message) as caught:
        backbones.load("hf:org/net")
    assert "\n" not in str(caught.value)


def test_nobody_there(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BackboneError, match="cannot be reached for hf:org/net"):
        backbones.load("hf:org/net")


@pytest.mark.parametrize(("name", "revision"), [("hf:org/net", ""), ("hf:org/net@v1", "@v1")])
def test_offline_it_says_what_to_do(server, monkeypatch, name, revision):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = f"{name} is not on this machine and HF_HUB_OFFLINE is set; run .headstart backbones pull {name}. once"
    with pytest.raises(BackboneError, match=message):
        backbones.load(name)
    assert server.asked == []


def test_a_broken_download_goes_on_where_it_stopped(server):
    server.cut_after = [500]
    progress = []
    found = hub.load_hub("org/net", InputOptions(), (), progress=lambda *seen: progress.append(seen))
    ranges = [byte for path, byte, _ in server.asked if path.endswith("model.onnx")]
    assert ranges == [None, "bytes=500-"]
    size = len(server.files["onnx/model.onnx"])
    assert progress[-1] == (size, size)
    assert found.id == FULL


def test_a_killed_download_goes_on_in_the_next_run(server):
    server.cut_after = [500] + [0] * 9
    with pytest.raises(BackboneError, match="run the command again"):
        backbones.load("hf:org/net")
    server.cut_after = []
    backbones.load("hf:org/net")
    assert server.asked[-1][1] == "bytes=500-"


def test_a_server_that_says_nothing(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    server.cut_after, server.stall = [500] + [0] * 9, 1
    with pytest.raises(BackboneError, match="said nothing in time"):
        backbones.load("hf:org/net")


@pytest.mark.parametrize("name", ["onnx/model.onnx", "preprocessor_config.json"])
def test_bytes_that_are_not_the_announced_ones_are_never_used(server, name):
    content = server.files[name]
    server.told[name] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(BackboneError, match=r"another hash than the [0-9a-f]{12}\.\.\. announced"):
        backbones.load("hf:org/net")
    assert not [p for p in cache_folder().rglob("*") if p.is_file() and p.name.startswith(name.split("/")[-1])]
    server.told.clear()
    assert backbones.load("hf:org/net").id == FULL


@pytest.mark.parametrize("change", [b"", b"longer"])
def test_another_length_than_announced(server, change):
    name = "onnx/model.onnx"
    server.told[name] = server.files[name] + b"x" if not change else server.files[name][:-6]
    with pytest.raises(BackboneError, match=r"run the command again|sends more than"):
        backbones.load("hf:org/net")


def test_which_graph(server):
    graph = server.files.pop("onnx/model.onnx")
    server.files |= {"net_int8.onnx": b"0", "net.onnx": graph}
    assert "net.onnx" in backbones.load("hf:org/net").source
    server.files["more.onnx"] = graph
    server.commit = LATER
    with pytest.raises(BackboneError, match=r"has 4 ONNX files; name one: hf:org/net\?file="):
        hub.load_hub("org/net", InputOptions(), (), renew=True)
    assert "more.onnx" in backbones.load(f"hf:org/net@{LATER}?file=more.onnx", options=InputOptions(crop=0.9)).source
    with pytest.raises(BackboneError, match=r"no ONNX file 'none\.onnx'"):
        backbones.load(f"hf:org/net@{LATER}?file=none.onnx")
    for name in [n for n in server.files if n.endswith(".onnx")]:
        del server.files[name]
    with pytest.raises(BackboneError, match="holds no ONNX file"):
        hub.load_hub("org/net", InputOptions(), (), renew=True)


def test_weights_beside_the_graph_come_too_and_none_from_outside(server, tmp_path):
    onnx.save(network(), tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx_data",
              size_threshold=0)  # fmt: skip
    plain = backbones.load("hf:org/net")
    server.files["onnx/model.onnx"] = (tmp_path / "model.onnx").read_bytes()
    server.files["onnx/model.onnx_data"] = (tmp_path / "model.onnx_data").read_bytes()
    server.commit = LATER
    found = hub.load_hub("org/net", InputOptions(), (), renew=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    one, two = (load_graph(b.graph, runtime="onnxruntime").run(pixels) for b in (plain, found))
    np.testing.assert_allclose(one[plain.taps[-1].name], two[plain.taps[-1].name], rtol=1e-5)
    server.files["onnx/model.onnx"] = server.files["onnx/model.onnx"].replace(b"model.onnx_data", b"../../../passwd")
    server.commit = "c" * 40
    with pytest.raises(BackboneError, match=r"needs the file '\.\./\.\./\.\./passwd'"):
        hub.load_hub("org/net", InputOptions(), (), renew=True)


@pytest.mark.parametrize(
    "name", ["../out.onnx", "/etc/out.onnx", "a/../../out.onnx", "C:\\out.onnx", "a\\..\\out.onnx"]
)
def test_names_that_leave_the_folder_are_not_looked_at(server, name, tmp_path):
    server.files[name] = server.files.pop("onnx/model.onnx")
    del server.files["onnx/model_quantized.onnx"]
    with pytest.raises(BackboneError, match="holds no ONNX file"):
        backbones.load("hf:org/net")
    assert not list(tmp_path.rglob("out.onnx"))


@pytest.mark.parametrize(
    "config",
    [b"[]", b"{", b"[" * 5000, b'{"image_mean": "red"}', b'{"image_std": [0, 0, 0]}', b'{"image_mean": [NaN, 0, 0]}',
     b'{"size": {"height": -1, "width": 5}}', b'{"crop_pct": 7}', b'{"rescale_factor": 0}', b'{"resample": [1]}',
     b" " * 2**21],
)  # fmt: skip
def test_descriptions_that_mean_nothing(server, config):
    server.files["preprocessor_config.json"] = config
    with pytest.raises((BackboneError, OptionError)) as caught:
        backbones.load("hf:org/net")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rest", ["", "net", "a/b/c", "../b", "a/..", "a/b@", "a/b@../c", "a/b?file=../x", "a/b?x=1"])
def test_ids_that_name_nothing(rest):
    with pytest.raises(OptionError, match="names no repository"):
        backbones.load(f"hf:{rest}")


def test_a_commit_that_is_not_the_one_asked_for(server):
    with pytest.raises(BackboneError, match=r"expected b{40}"):
        backbones.load(f"hf:org/net@{LATER}")


def test_what_huggingface_hub_keeps_is_used_offline(server, tmp_path, monkeypatch):
    repository = tmp_path / "hf" / "hub" / "models--org--net"
    for name, content in server.files.items():
        path = repository / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert backbones.load("hf:org/net").id == FULL
    assert server.asked == []


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["headstart", "backbones", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, *capsys.readouterr()


def test_pull_measures_and_list_shows(server, monkeypatch, capsys):
    status, out, err = command(monkeypatch, capsys, "pull", "hf:org/net", "--progress", "--runtime", "onnxruntime")
    assert status == 0, err
    assert FULL in out
    assert "apache-2.0" in out
    assert "pictures/s" in out
    assert "Downloading" in err
    found = json.loads(command(monkeypatch, capsys, "list", "--json")[1])
    entry = next(e for e in found if e["id"] == FULL)
    assert entry["speed"]["pictures_per_second"] > 0
    assert (entry["speed"]["runtime"], entry["speed"]["precision"]) == ("onnxruntime", "fp32")
    listed = command(monkeypatch, capsys, "list")[1]
    assert re.search(r"pictures/s \(onnxruntime fp32\)", listed)
    pulled = json.loads(command(monkeypatch, capsys, "pull", "hf:org/net", "--json")[1])
    assert (pulled["id"], pulled["licence"], pulled["bytes"]) == (FULL, "apache-2.0", entry["bytes"])
    assert command(monkeypatch, capsys, "remove", FULL)[0] == 0
    server.status = 404
    status, out, err = command(monkeypatch, capsys, "pull", "hf:org/none")
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_pull_of_what_is_here_already(tmp_path, monkeypatch, capsys):
    file = saved(tmp_path)
    for name in ("headstart-s", f"onnx:{file}"):
        status, out, _ = command(monkeypatch, capsys, "pull", name, "--json")
        assert status == 0
        assert json.loads(out)["speed"]["pictures_per_second"] > 0


def test_an_environment_alone_leads_to_another_hub(server, tmp_path):
    """A process of its own, since huggingface_hub reads the environment when it is imported."""
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "backbones", "show", "hf:org/net", "--json"],
        env={**os.environ, "HEADSTART_CACHE": str(tmp_path / "c")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == FULL


def test_a_real_network_as_a_repository(server, shared):
    file = shared / "weights" / "mobilenetv2-imagenet.onnx"
    server.files["onnx/model.onnx"] = file.read_bytes()
    described = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 256}, "crop_size": 224}
    server.files["preprocessor_config.json"] = json.dumps(described).encode()
    found = backbones.load("hf:org/net")
    options = InputOptions(mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.875, resize="shortest")
    assert found.sha256 == backbones.load(f"onnx:{file}", options=options).sha256
    assert (found.preprocess.height, found.preprocess.crop) == (224, 0.875)
