"""``headstart compare``."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.graphs import saved

from headstart.backbones import DEFAULT_BACKBONE, InputOptions
from headstart.backbones.providers import PROVIDERS
from headstart.backbones.providers.onnx_file import load_onnx


@pytest.fixture(scope="module")
def two_networks(tmp_path_factory):
    """Two small networks with different weights."""
    folder = tmp_path_factory.mktemp("nets")
    return [f"onnx:{saved(folder, f'net{seed}.onnx', seed=seed)}" for seed in (0, 1)]


@pytest.fixture
def timm_provider(monkeypatch, two_networks):
    """A provider ``timm:`` that needs no PyTorch: its weight files are small ONNX networks. Returns two such files."""

    def load(rest, options, taps):
        return replace(load_onnx(options.weights or two_networks[0][5:], InputOptions(), taps), id=f"timm:{rest}")

    monkeypatch.setitem(PROVIDERS, "timm", load)
    return [name[5:] for name in two_networks]


def test_json(run, photos, two_networks):
    ids = ",".join(["headstart-s", *two_networks])
    status, out, _ = run("compare", photos, "--backbones", ids, "--cuts", "all", "--json")
    assert status == 0
    value = json.loads(out)
    assert value["images"] == {"count": 28, "quarantined": 0}
    assert {row["backbone"] for row in value["rows"]} == {"headstart-s", *two_networks}
    assert value["recommended"]["backbone"] in ("headstart-s", *two_networks)
    assert value["skipped"] == []


def test_the_table_is_at_most_80_columns_wide(run, photos, two_networks):
    ids = ",".join(["headstart-s", *two_networks])
    status, out, _ = run("compare", photos, "--backbones", ids, "--cuts", "all")
    assert status == 0
    table = out.split("loss: log-loss")[0].splitlines()
    assert all(len(line) <= 80 for line in table)
    assert len(table) >= 2 + 5 + 2 * 2
    assert sum(line.startswith(">") for line in table) == 1


def test_weights_where_ids_and_files_hold_equals_signs(run, photos, timm_provider):
    """One id is also the beginning of the other."""
    first, second = timm_provider
    path_with_equals_sign = Path(first).with_name("a=b.onnx")
    path_with_equals_sign.write_bytes(Path(first).read_bytes())
    ids = "timm:net?pad=same,timm:net"
    weights = [
        f"--weights=timm:net={second}",
        f"--weights=timm:net?pad=same={path_with_equals_sign}",
        f"--weights=timm:net={first}",
    ]
    status, out, _ = run("compare", photos, "--backbones", ids, *weights, "--json")
    assert status == 0
    value = json.loads(out)
    expected = {("timm:net?pad=same", str(path_with_equals_sign)), ("timm:net", first), ("timm:net", second)}
    assert {(row["backbone"], row["weights"]) for row in value["rows"]} == expected
    assert (value["recommended"]["backbone"], value["recommended"]["weights"]) in expected
    status, out, err = run("compare", photos, "--backbones", ids, *weights, "--progress")
    assert status == 0
    assert "84/84" in err  # three times 28 images
    assert "net1.onnx" in out


@pytest.mark.parametrize("text", ["x", "=x", "timm:net", "timm:net=", "timm:other=x", "timm:nets=x"])
def test_weights_that_name_no_backbone_are_an_error_of_one_line(run, photos, text):
    status, out, err = run("compare", photos, "--backbones", "headstart-s,timm:net", f"--weights={text}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "expected ID=FILE" in err


def test_weights_for_a_backbone_that_has_its_own_are_an_error_of_one_line(run, photos):
    for name in ("headstart-s", "onnx:net.onnx"):
        status, out, err = run("compare", photos, "--backbones", name, f"--weights={name}=w.pth")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "its own" in err


def test_several_values_of_an_option_are_compared_on_the_default_backbone(run, photos):
    status, out, _ = run("compare", photos, "--dropout", "0,0.5", "--json")
    assert status == 0
    result = json.loads(out)
    assert {row["variant"]["dropout"] for row in result["rows"]} == {0.0, 0.5}
    assert {row["backbone"] for row in result["rows"]} == {DEFAULT_BACKBONE}
    status, out, _ = run("compare", photos, "--dropout", "0,0.5")
    assert status == 0
    rows = [line[3:].split("  ")[0] for line in out.splitlines() if "±" in line]
    assert sorted(rows) == ["dropout 0.0", "dropout 0.5"]
    status, out, err = run("compare", photos, "--epochs", "3,5")
    assert (status, out) == (2, "")
    assert err == "headstart: Only the mlp head is trained; give --head mlp, or leave --epochs out.\n"
