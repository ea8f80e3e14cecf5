"""``decode="full"``: no JPEG is read at a fraction of its size, in the fit, the cache, the model and predictions."""

import json

import numpy as np
import pytest
from PIL import Image

from headstart import Compute, FitOptions, Predictor, fit_dataset, open_dataset
from headstart.errors import OptionError
from headstart.images.decoding import decode


@pytest.fixture
def large(photos, tmp_path):
    """The photos, enlarged, so that a JPEG of them can be read at a fraction of its size."""
    for path in sorted((photos / "train").rglob("*.jpg")):
        target = tmp_path / "large" / path.relative_to(photos / "train")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.resize((1280, 960), Image.Resampling.BICUBIC).save(target, quality=90)
    return tmp_path / "large"


def test_a_fit_with_full_decoding_reads_whole_images(large, tmp_path):
    dataset = open_dataset(large)
    options = {
        name: FitOptions("headstart-s", compute=Compute("onnxruntime"), decode=name) for name in ("scaled", "full")
    }
    results = {name: fit_dataset(dataset, chosen) for name, chosen in options.items()}
    assert results["full"].data.features.hits == 0  # those of the scaled fit are other features
    preprocess = results["full"].model.preprocess
    assert (preprocess.decode, results["scaled"].model.preprocess.decode) == ("full", "scaled")
    row = results["full"].data.features.index[0]
    whole = preprocess(decode(dataset.read(int(row))))
    golden = results["full"].model.golden.pixels
    assert any(np.array_equal(whole, pixels) for pixels in golden)
    assert not any(np.array_equal(whole, pixels) for pixels in results["scaled"].model.golden.pixels)
    folder = results["full"].save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    assert config["preprocess"]["decode"] == "full"
    predictor = Predictor.load(folder, Compute("onnxruntime"))
    again = predictor.predict([decode(dataset.read(0))]).probabilities  # an array is never scaled
    np.testing.assert_allclose(predictor.predict([dataset.read(0)]).probabilities, again, atol=1e-6)
    assert predictor.verify().difference < 1e-5


def test_an_unknown_decoding_is_an_error():
    with pytest.raises(OptionError, match="Decoding 'half' is unknown; expected scaled or full"):
        FitOptions(decode="half")
