"""What notebooks show of a model and of an evaluation."""

import re
from dataclasses import replace

import numpy as np
from PIL import Image

import headstart as hs
from headstart.model.notebook import evaluation_html, model_html
from headstart.model.predictions import Predictions, evaluate


def cells(html):
    return re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", html)


def evaluation_of(truth, predicted, classes):
    probabilities = np.eye(len(classes))[predicted]
    paths = tuple(map(str, range(len(truth))))
    return evaluate(Predictions(tuple(classes), paths, np.arange(len(truth)), probabilities, np.array(truth)))


def test_a_loaded_model_shows_and_knows_its_accuracy(model_folder):
    classifier = hs.load(model_folder)
    accuracy = classifier.accuracy_["leave_group_out"]
    assert accuracy.count == 28
    found = dict(zip(cells(classifier._repr_html_())[::2], cells(classifier._repr_html_())[1::2], strict=True))
    assert found["Accuracy, leaving one group out at a time"] == str(accuracy)
    assert found["Classes (2)"] == "disc, stripes"
    assert found["Backbone"] == "headstart-s"


def test_before_the_fit_the_parameters_are_shown():
    assert hs.ImageClassifier(head="<b>")._repr_html_() == "<code>ImageClassifier(head=&#x27;&lt;b&gt;&#x27;)</code>"


def test_an_evaluation_shows_its_classes_its_errors_and_the_weak_class():
    evaluation = evaluation_of([0] * 60 + [1] * 60, [0] * 60 + [1] * 6 + [0] * 54, ["dolls", "humans"])
    html = evaluation._repr_html_()
    assert "<b>Accuracy</b> 55.0% (66/120" in html
    assert "<b>Weak class</b> humans: 10.0% recall" in html
    assert cells(html)[:5] == ["class", "precision", "recall", "F1", "images"]
    assert cells(html)[10:15] == ["humans", "100.0%", "10.0%", "18.2%", "60"]
    assert cells(html)[15:] == ["", "dolls", "humans", "dolls", "60", "0", "humans", "54", "6"]


def test_many_classes_are_cut_and_have_no_matrix():
    classes = [f"class {i}" for i in range(40)]
    html = evaluation_html(evaluation_of(range(40), range(40), classes))
    assert "and 10 more classes" in html
    assert "class 29" in html
    assert "class 30" not in html
    assert "True classes" not in html


def test_hostile_names_are_inert(model_folder):
    name = "<img src=x onerror=alert(1)>\x1b"
    model = replace(hs.load(model_folder).model_, classes=(name, "b"))
    for html in (model_html(model), evaluation_html(evaluation_of([0, 1], [0, 1], [name, "b"]))):
        assert "<img" not in html
        assert "\x1b" not in html
        assert "&lt;img src=x" in html


def test_pil_images_are_predicted(model_folder, photos):
    path = next((photos / "validation" / "disc").iterdir())
    classifier = hs.load(model_folder)
    with Image.open(path) as image:
        by_image = classifier.predict_proba([image])
    assert np.allclose(by_image, classifier.predict_proba([path]), atol=0.02)
