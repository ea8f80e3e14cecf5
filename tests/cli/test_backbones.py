"""The default backbone, what ``fit`` says of it, and ``headstart backbones list``."""

import inspect
import json

import pytest

import headstart as hs
from headstart import backbones
from headstart.backbones import DEFAULT_BACKBONE, FAST_BACKBONE, store
from headstart.backbones.providers.builtin import built_in
from headstart.check import check_dataset
from headstart.cli import options
from headstart.errors import BackboneError

NAMES = (DEFAULT_BACKBONE, FAST_BACKBONE)


def test_all_that_take_a_backbone_have_one_default(run):
    assert DEFAULT_BACKBONE == options.DEFAULT_BACKBONE == "headstart-m"
    assert hs.FitOptions().backbone == hs.ImageClassifier().backbone == DEFAULT_BACKBONE
    assert inspect.signature(check_dataset).parameters["backbone"].default == DEFAULT_BACKBONE
    for command in ("fit", "fine-tune", "check"):
        assert "[default: headstart-m]" in " ".join(run(command, "--help")[1].split())


def test_fit_names_the_default_backbone_and_the_faster_one_where_none_is_chosen(run, photos, tmp_path):
    output = ("-o", tmp_path / "m", "--no-report", "--quiet")
    status, out, err = run("fit", photos, *output)
    assert (status, err) == (0, "")
    (said,) = [line for line in out.splitlines() if line.startswith("Backbone ")]
    fast, default = (built_in(name).measured.images_per_second for name in (FAST_BACKBONE, DEFAULT_BACKBONE))
    assert said == (
        "Backbone    headstart-m (EfficientNet-Lite0, 224 px); --backbone headstart-s is a little less accurate, but "
        f"reads images about {fast / default:.2g} times as fast"
    )
    assert "of headstart-m\n" in out
    status, out, _ = run("fit", photos, *output, "--backbone", DEFAULT_BACKBONE)
    assert status == 0
    assert "of headstart-m\n" in out
    assert "Backbone " not in out


def rows(text):
    """The rows of the table of the built-in backbones, by name."""
    table = text.split("\nbuilt in ")[1].split("\n\n")[0]
    return {line.split()[0]: line.split() for line in table.splitlines() if line.startswith("headstart-")}


def test_list_shows_size_speed_and_accuracy_of_the_built_in_backbones(run):
    status, out, _ = run("backbones", "list")
    assert status == 0
    assert rows(out) == {
        "headstart-m": ["headstart-m", "224", "px", "6.8", "-", *accuracies("headstart-m")],
        "headstart-s": ["headstart-s", "160", "px", "3.7", "-", *accuracies("headstart-s")],
    }
    assert "ants-bees  horse-or-human\n" in out
    assert "not measured yet: headstart-m, headstart-s; to measure it: headstart backbones pull headstart-m\n" in out
    speed = store.Speed(1234.4, "onnxruntime", "1.2", "fp32")
    store.record_speed(backbones.load("headstart-s"), speed)
    out = run("backbones", "list")[1]
    assert rows(out)["headstart-s"][4] == "1,234"
    assert rows(out)["headstart-m"][4] == "-"
    assert "images/s: the network alone on this machine, onnxruntime fp32\nnot measured yet: headstart-m; to " in out
    store.record_speed(backbones.load("headstart-m"), speed)
    assert "not measured" not in run("backbones", "list")[1]


def accuracies(name):
    graph = backbones.load(name).graph
    measured = json.loads(graph.with_name("backbone.json").read_text("utf-8"))["measured"]["accuracy"]
    return [f"{measured[data]['correct']}/{measured[data]['count']}" for data in ("ants-bees", "horse-or-human")]


def test_list_json_has_the_documented_form(run):
    first, second, *others = json.loads(run("backbones", "list", "--json")[1])
    assert [(first["id"], first["default"]), (second["id"], second["default"])] == [
        ("headstart-m", True),
        ("headstart-s", False),
    ]
    for entry, network in ((first, "EfficientNet-Lite0"), (second, "pruned MobileNetV2")):
        backbone = backbones.load(entry["id"])
        measured = json.loads(backbone.graph.with_name("backbone.json").read_text("utf-8"))["measured"]
        assert entry == {
            "id": backbone.id,
            "what": backbones.AVAILABLE[backbone.id],
            "default": backbone.id == DEFAULT_BACKBONE,
            "network": network,
            "size": [backbone.preprocess.height, backbone.preprocess.width],
            "bytes": backbone.graph.stat().st_size,
            "licence": "Apache-2.0",
            "sha256": backbone.sha256,
            "speed": None,
            "measured": measured,
        }
    assert all(set(entry) == {"id", "what"} for entry in others)


def test_pull_measures_a_built_in_backbone_and_list_shows_it(run):
    pulled = json.loads(run("backbones", "pull", "headstart-s", "--runtime", "onnxruntime", "--json")[1])
    second = json.loads(run("backbones", "list", "--json")[1])[1]
    assert second["speed"] == pulled["speed"]
    assert second["speed"]["pictures_per_second"] > 0
    assert store.entries() == ()  # the graph stays in the package


def test_the_cards_have_the_figures_that_list_shows():
    for name in NAMES:
        card = backbones.load(name).graph.with_name("CARD.md").read_text("utf-8")
        measured = built_in(name).measured
        for data, (correct, count) in measured.accuracy.items():
            assert f"| {data}, validation | {correct} of {count} |" in card
        assert f"| images per second | {measured.images_per_second:.0f} |" in card
        assert f"({measured.how}" in card
    fast, accurate = built_in(FAST_BACKBONE).measured, built_in(DEFAULT_BACKBONE).measured
    assert fast.images_per_second > accurate.images_per_second
    assert all(fast.accuracy[data] <= accurate.accuracy[data] for data in accurate.accuracy)


@pytest.mark.parametrize("text", ["{}", "[", '{"sha256": "0", "network": "x"}'])
def test_a_damaged_description_is_one_line(tmp_path, monkeypatch, text):
    (tmp_path / "headstart-m").mkdir()
    (tmp_path / "headstart-m" / "backbone.json").write_text(text)
    monkeypatch.setattr("headstart.backbones.providers.builtin.resources.files", lambda _: tmp_path)
    with pytest.raises(BackboneError, match=r"headstart-m.* is damaged: [^\n]*\.$"):
        built_in("headstart-m")
