"""What timm: and keras: share and needs neither framework: ids, files of weights, and packages that are missing."""

import sys

import pytest
from helpers.graphs import saved

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.backbones.providers.framework import parse_id
from headstart.errors import BackboneError, MissingExtraError, OptionError


@pytest.mark.parametrize("kind", ["timm", "keras"])
def test_a_framework_that_is_not_installed_says_what_to_install(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)  # what an import of a missing package finds
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'headstart\[{kind}\]'") as caught:
        backbones.load(f"{kind}:anything")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rest", ["", "?a=1", "../x", "a b", "x?a", "x?a=1&a=2", "x?=1", "x?a b=1", "hf-hub:org/x", "x/y", "x" * 200]
)
def test_ids_that_cannot_be_parsed_are_refused_in_one_line(rest):
    with pytest.raises(OptionError) as caught:
        backbones.load(f"timm:{rest}")
    assert "\n" not in str(caught.value)


def test_arguments_in_an_id():
    text = "net?pad_type=same&num_classes=1001&alpha=0.5&se=true&drop=False&act=none"
    values = {"pad_type": "same", "num_classes": 1001, "alpha": 0.5, "se": True, "drop": False, "act": None}
    assert parse_id("timm", text) == ("net", values)
    assert parse_id("timm", "x?") == ("x", {})


def test_files_of_weights_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(BackboneError, match="no file of weights"):
        backbones.load("timm:resnet18", options=InputOptions(weights=str(tmp_path / "none.pth")))
    for name in ("headstart-s", f"onnx:{saved(tmp_path)}"):
        with pytest.raises(OptionError, match="leave"):
            backbones.load(name, options=InputOptions(weights="w.pth"))
