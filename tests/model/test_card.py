"""The model card explains the thresholds, and names from outside cannot format it."""

from dataclasses import replace

from headstart.model.card import model_card
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


def test_names_from_outside_do_not_format_the_card(model_folder):
    names = ("<script>alert(1)</script>", "[x](http://evil)\n# Big")
    card = model_card(replace(read_model(model_folder), classes=names))
    assert "<script>" not in card
    assert "[x](" not in card
    assert "\n# Big" not in card
