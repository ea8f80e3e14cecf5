"""The model card explains the thresholds, and names from outside cannot format it."""

from dataclasses import replace

from headstart.model.card import escape_markdown, model_card
from headstart.model.folder import read_model


def test_the_card_explains_the_thresholds(model_folder):
    model = read_model(model_folder)
    thresholds = replace(
        model.thresholds, set_thresholds=(0.25, 0.5), reject_threshold=0.625, coverage=0.9, false_alarms=0.1
    )
    card = model_card(replace(model, thresholds=thresholds))
    assert "hold the true class of 90% of images" in card
    assert "`distance` (0 to 1), is above 0.625" in card
    assert "10% of images of these classes are rejected wrongly" in card
    none = replace(thresholds, set_thresholds=(0.0, 0.0), reject_threshold=float("inf"))
    card = model_card(replace(model, thresholds=none))
    assert "Prediction sets hold every class" in card
    assert "No image is rejected as none of these classes" in card


def test_the_program_of_the_card_fills_a_batch_where_the_graph_takes_no_other(model_folder):
    model = read_model(model_folder)
    assert 'pixels = preprocess("new.jpg")[numpy.newaxis]' in model_card(model)
    card = model_card(replace(model, batch=4))
    assert "Input: RGB, uint8, `[4, " in card
    assert 'pixels = numpy.stack([preprocess("new.jpg")] * 4)' in card
    assert "numpy.newaxis" not in card


def test_the_card_says_whose_images_the_model_holds(model_folder):
    model = read_model(model_folder)
    assert "`golden.npz` holds up to 8 of the training images" in model_card(model)
    of_features = model_card(replace(model, run={**model.run, "options": {}}))
    assert "`golden.npz` holds 8 rendered images, of nobody" in of_features
    assert "`report.json`, where they are here, show small copies" in of_features
    assert "not measured" not in of_features


def test_names_from_outside_do_not_format_the_card(model_folder):
    names = ("<script>alert(1)</script>", "[x](http://evil)\n# Big")
    card = model_card(replace(read_model(model_folder), classes=names))
    assert "<script>" not in card
    assert "[x](" not in card
    assert "\n# Big" not in card


def test_names_are_escaped_only_where_they_would_format_something(model_folder):
    model = read_model(model_folder)
    backbone = {**model.backbone, "id": "headstart-s", "licence": "Apache-2.0"}
    card = model_card(replace(model, backbone=backbone, classes=("guinea-pig", "www.evil.org")))
    assert "Backbone: headstart-s, licence Apache-2.0" in card
    assert "2 classes: guinea-pig, www\\.evil\\.org." in card
    assert escape_markdown("a. b") == "a. b"
    assert escape_markdown("- x") == "\\- x"
    assert escape_markdown("12. x") == "12\\. x"
    assert escape_markdown("# x") == "\\# x"


def test_the_card_names_weak_classes(model_folder):
    model = read_model(model_folder)
    weak = {"class": "humans_1", "recall": {"value": 0.1, "count": 70}, "taken_for": "dolls", "taken": 63}
    card = model_card(replace(model, run={**model.run, "weak_classes": {"validation": [weak], "leave_group_out": []}}))
    assert "- Weak class: of humans\\_1 10.0% are recognised; 63 of 70 are taken for dolls" in card
