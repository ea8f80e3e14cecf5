"""Training curves: the numbers are where they should be."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from headstart.report.training_curves import curves_svg, curves_text


def epochs(accuracies, with_validation=False):
    return [
        {
            "number": i + 1,
            "loss": 1 - a,
            "accuracy": a,
            "validation_loss": 1.2 - a if with_validation else None,
            "validation_accuracy": a / 2 if with_validation else None,
        }
        for i, a in enumerate(accuracies)
    ]


def test_column_heights_follow_the_values():
    lines = curves_text(epochs([0.5, 0.75, 1.0])).splitlines()
    assert lines[0] == "accuracy by epoch, 1 to 3"
    columns = [line.split("│")[1] for line in lines[1:7]]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(row[i]) for row in columns) for i in range(3)]
    assert heights == [0, 24, 48]
    assert lines[1].split("│")[0].strip() == "1"
    assert lines[6].split("│")[0].strip() == "0.5"


def test_many_epochs_are_averaged_to_the_width():
    lines = curves_text(epochs([i / 1000 for i in range(1000)])).splitlines()
    assert {len(line.split("│")[1]) for line in lines if "│" in line} == {60}
    assert lines[1].split("│")[0].strip() == "0.991"  # the mean of the last sixtieth


@pytest.mark.parametrize("with_validation", [False, True])
def test_the_svg_has_a_line_per_series_through_every_epoch(with_validation):
    root = ElementTree.fromstring(curves_svg(epochs([0.5, 0.6, 0.9, 1.0], with_validation)))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == (4 if with_validation else 2)
    points = [tuple(map(float, pair.split(","))) for pair in lines[0].get("points").split()]
    assert [x for x, _ in points] == pytest.approx([60, 60 + 280 / 3, 60 + 560 / 3, 340], abs=0.1)
    if not with_validation:
        assert [y for _, y in points] == pytest.approx([250, 208, 82, 40], abs=0.1)
    words = " ".join(text.text for text in root.findall("{http://www.w3.org/2000/svg}text"))
    assert re.search("validation", words) is not None or not with_validation


def test_equal_values_are_drawn():
    assert "█" in curves_text(epochs([0.7, 0.7]))
    ElementTree.fromstring(curves_svg(epochs([0.7, 0.7])))


def test_one_epoch_is_reported_as_a_sentence_and_drawn_as_points():
    assert curves_text(epochs([0.7])) == "accuracy 0.7, loss 0.3 after one epoch"
    points = ElementTree.fromstring(curves_svg(epochs([0.7], with_validation=True))).findall("{*}circle")
    assert [float(point.get("cy")) for point in points] == pytest.approx([40, 250, 250 - 210 * 0.3 / 0.5, 40], abs=0.1)


def test_one_of_several_trainings_is_named():
    assert curves_text(epochs([0.7, 0.8]), "fold 5 of 5").splitlines()[0] == "accuracy by epoch, 1 to 2, fold 5 of 5"
    assert curves_text(epochs([0.7]), "all images").endswith("after one epoch, all images")
