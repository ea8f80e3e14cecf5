"""hf:ORG/NAME: fetched once, pinned to a commit, described by the repository, and kept."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from helpers.graphs import network, saved, tensor_value
from helpers.hub_server import COMMIT, CONFIG, LATER_COMMIT, PINNED

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.backbones.providers import hub
from headstart.cli import main
from headstart.errors import BackboneError, OptionError
from headstart.features import Compute
from headstart.features.runtime import load_graph
from headstart.machine import cache_folder

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def features(backbone):
    return load_graph(backbone.graph, Compute("onnxruntime")).run(PIXELS)[backbone.taps[-1].name]


def test_it_is_fetched_once_pinned_and_described(server, monkeypatch):
    backbone = backbones.load("hf:org/net")
    assert (backbone.id, backbone.licence) == (PINNED, "apache-2.0")
    assert COMMIT in backbone.source
    assert (backbone.preprocess.resize, backbone.preprocess.crop, backbone.notes) == ("squash", 1.0, ())
    scaled = (PIXELS / 255 - CONFIG["image_mean"]) / CONFIG["image_std"]
    image = scaled.transpose(0, 3, 1, 2).astype(np.float32)
    expected = tensor_value(network(), "pooled", image).reshape(2, -1)
    np.testing.assert_allclose(features(backbone), expected, rtol=1e-3, atol=1e-4)
    requests = len(server.requests)
    assert not list((cache_folder() / "hub").rglob("*.onnx"))
    assert not any("quantized" in path for path, *_ in server.requests)
    server.commit = LATER_COMMIT
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("hf:org/net", PINNED):
        assert backbones.load(name, taps=(backbone.taps[0].name,)) == backbone
    assert len(server.requests) == requests
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert hub.load_hub("org/net", InputOptions(), (), renew=True).id == f"hf:org/net@{LATER_COMMIT}"
    assert backbones.load("hf:org/net").id == f"hf:org/net@{LATER_COMMIT}"


def test_options_and_cuts_are_kept_apart(server):
    plain, cropped = backbones.load("hf:org/net"), backbones.load("hf:org/net", options=InputOptions(crop=0.5))
    assert (plain.preprocess.crop, cropped.preprocess.crop) == (1.0, 0.5)
    assert "c1" in [tap.name for tap in backbones.load("hf:org/net", taps=("c1",)).taps]
    with pytest.raises(OptionError, match="leave --weights out"):
        backbones.load("hf:org/net", options=InputOptions(weights="x"))


def test_which_graph_is_chosen(server):
    graph = server.files.pop("onnx/model.onnx")
    server.files |= {"net_int8.onnx": b"0", "net.onnx": graph}
    assert "net.onnx" in backbones.load("hf:org/net").source
    server.files["more.onnx"] = graph
    server.commit = LATER_COMMIT
    with pytest.raises(BackboneError, match=r"has 4 ONNX files; name one: hf:org/net\?file="):
        hub.load_hub("org/net", InputOptions(), (), renew=True)
    named = backbones.load(f"hf:org/net@{LATER_COMMIT}?file=more.onnx", options=InputOptions(crop=0.9))
    assert "more.onnx" in named.source
    with pytest.raises(BackboneError, match=r"no ONNX file 'none\.onnx'"):
        backbones.load(f"hf:org/net@{LATER_COMMIT}?file=none.onnx")
    for name in [n for n in server.files if n.endswith(".onnx")]:
        del server.files[name]
    with pytest.raises(BackboneError, match="holds no ONNX file"):
        hub.load_hub("org/net", InputOptions(), (), renew=True)


def test_weights_beside_the_graph_come_too_and_none_from_outside(server, tmp_path):
    path, location = tmp_path / "model.onnx", "model.onnx_data"
    onnx.save(network(), path, save_as_external_data=True, location=location, size_threshold=0)
    plain = backbones.load("hf:org/net")
    server.files["onnx/model.onnx"] = path.read_bytes()
    server.files["onnx/model.onnx_data"] = (tmp_path / location).read_bytes()
    server.commit = LATER_COMMIT
    external = hub.load_hub("org/net", InputOptions(), (), renew=True)
    np.testing.assert_allclose(features(plain), features(external), rtol=1e-5)
    server.files["onnx/model.onnx"] = server.files["onnx/model.onnx"].replace(b"model.onnx_data", b"../../../passwd")
    server.commit = "c" * 40
    with pytest.raises(BackboneError, match=r"needs the file '\.\./\.\./\.\./passwd'"):
        hub.load_hub("org/net", InputOptions(), (), renew=True)


@pytest.mark.parametrize(
    "config",
    [
        b"[]",
        b"{",
        b"[" * 5000,
        b'{"image_mean": "red"}',
        b'{"image_std": [0, 0, 0]}',
        b'{"image_mean": [NaN, 0, 0]}',
        b'{"size": {"height": -1, "width": 5}}',
        b'{"crop_pct": 7}',
        b'{"rescale_factor": 0}',
        b'{"resample": [1]}',
        b" " * 2**21,
    ],
)
def test_configurations_that_cannot_be_used_are_refused_in_one_line(server, config):
    server.files["preprocessor_config.json"] = config
    with pytest.raises((BackboneError, OptionError)) as caught:
        backbones.load("hf:org/net")
    assert "\n" not in str(caught.value)


def test_an_image_size_that_cannot_be_used_is_refused_in_one_line(server):
    del server.files["preprocessor_config.json"]
    server.files["config.json"] = b'{"image_size": ["large", 5]}'
    with pytest.raises(BackboneError, match=r"config\.json of hf:org/net cannot be used") as caught:
        backbones.load("hf:org/net")
    assert "\n" not in str(caught.value)


def test_what_huggingface_hub_keeps_is_used_offline(server, tmp_path, monkeypatch):
    repository = tmp_path / "hf" / "hub" / "models--org--net"
    for name, content in server.files.items():
        path = repository / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert backbones.load("hf:org/net").id == PINNED
    assert server.requests == []


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["headstart", "backbones", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, *capsys.readouterr()


def test_pull_measures_and_list_shows(server, monkeypatch, capsys):
    status, out, err = command(monkeypatch, capsys, "pull", "hf:org/net", "--progress", "--runtime", "onnxruntime")
    assert status == 0, err
    assert PINNED in out
    assert "apache-2.0" in out
    assert "images/s" in out
    assert "Downloading" in err
    entries = json.loads(command(monkeypatch, capsys, "list", "--json")[1])
    entry = next(e for e in entries if e["id"] == PINNED)
    assert entry["speed"]["pictures_per_second"] > 0
    assert (entry["speed"]["runtime"], entry["speed"]["precision"]) == ("onnxruntime", "fp32")
    listed = command(monkeypatch, capsys, "list")[1]
    assert re.search(r"images/s \(onnxruntime fp32\)", listed)
    pulled = json.loads(command(monkeypatch, capsys, "pull", "hf:org/net", "--json")[1])
    assert (pulled["id"], pulled["licence"], pulled["bytes"]) == (PINNED, "apache-2.0", entry["bytes"])
    assert command(monkeypatch, capsys, "remove", PINNED)[0] == 0
    server.status = 404
    status, out, err = command(monkeypatch, capsys, "pull", "hf:org/none")
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_pull_of_what_needs_no_download(tmp_path, monkeypatch, capsys):
    file = saved(tmp_path)
    for name in ("headstart-s", f"onnx:{file}"):
        status, out, _ = command(monkeypatch, capsys, "pull", name, "--json")
        assert status == 0
        assert json.loads(out)["speed"]["pictures_per_second"] > 0


def test_the_environment_alone_leads_to_another_hub(server, tmp_path):
    """In a process of its own, since huggingface_hub reads the environment when it is imported."""
    completed = subprocess.run(
        [sys.executable, "-m", "headstart", "backbones", "show", "hf:org/net", "--json"],
        env={**os.environ, "HEADSTART_CACHE": str(tmp_path / "c")},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout)["id"] == PINNED


def test_a_real_network_as_a_repository(server, shared):
    file = shared / "weights" / "mobilenetv2-imagenet.onnx"
    server.files["onnx/model.onnx"] = file.read_bytes()
    config = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 256}, "crop_size": 224}
    server.files["preprocessor_config.json"] = json.dumps(config).encode()
    backbone = backbones.load("hf:org/net")
    options = InputOptions(mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.875, resize="shortest")
    assert backbone.sha256 == backbones.load(f"onnx:{file}", options=options).sha256
    assert (backbone.preprocess.height, backbone.preprocess.crop) == (224, 0.875)
