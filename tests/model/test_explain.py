"""Class activation maps of new images from the graph of a finished model."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from headstart.errors import OptionError
from headstart.features import Compute
from headstart.images.decoding import decode
from headstart.model import Predictor
from headstart.model.explain import Explainer, side_by_side


def test_contributions_and_bias_add_up_to_the_log_odds_of_the_model(model_folder, photos):
    predictor = Predictor.load(model_folder, Compute("onnxruntime"))
    paths = sorted((photos / "validation").rglob("*.jpg"))
    model = predictor.model
    pixels = np.stack([model.preprocess(Image.fromarray(decode(path.read_bytes()))) for path in paths])
    probabilities = predictor.predict([*map(str, paths)]).probabilities
    positive, negative = probabilities.argmax(axis=1), probabilities.argmin(axis=1)
    activations = list(Explainer.of(model).activations(pixels, positive, negative))
    assert len(activations) == len(paths)
    for i, (activation, bias) in enumerate(activations):
        odds = np.log(probabilities[i, positive[i]] / probabilities[i, negative[i]])
        assert activation.ndim == 2
        assert activation.sum() + bias == pytest.approx(odds, abs=0.02)


def test_a_head_that_is_not_linear_has_no_maps(model_folder):
    model = Predictor.load(model_folder).model
    bent = replace(model, head=replace(model.head, hidden_layer=(np.eye(2), np.zeros(2))))
    with pytest.raises(OptionError, match="not linear"):
        Explainer.of(bent)


def test_places_for_the_class_are_blue_and_places_against_it_orange():
    pixels = np.full((32, 32, 3), 128, np.uint8)
    activation = np.zeros((4, 4))
    activation[0, 0], activation[3, 3] = 2.0, -1.0
    picture = np.asarray(side_by_side(pixels, activation))
    assert picture.shape == (32, 64, 3)
    assert (picture[:, :32] == 128).all()
    red, green, blue = picture[2, 34].astype(int)
    assert blue > green > red
    red, green, blue = picture[29, 61].astype(int)
    assert red > green > blue
    assert (picture[4, 60] == 128).all()
