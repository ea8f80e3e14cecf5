"""Files of Keras weights that do not fit, or lie. Runs where Keras is installed (``make zoo``)."""

import json
import zipfile

import pytest
from helpers.frameworks import keras_network, needs

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.errors import HeadstartError

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]
needs("torch", "keras", "h5py", "onnxscript")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with good.weights.h5 and good.keras of one small network."""
    path = tmp_path_factory.mktemp("weights")
    network = keras_network("MobileNet", 64, alpha=0.25)
    network.save_weights(path / "good.weights.h5")
    network.save(path / "good.keras")
    return path


def error(path, name="MobileNet?alpha=0.25"):
    """The one line of the error that loading the network with this file raises."""
    with pytest.raises(HeadstartError) as caught:
        backbones.load(f"keras:{name}", options=InputOptions(weights=str(path), size=(64, 64)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_hdf5_files_that_lie_are_refused(folder):
    import h5py

    def changed(name, change):
        (folder / name).write_bytes((folder / "good.weights.h5").read_bytes())
        with h5py.File(folder / name, "r+") as file:
            change(file)
        return folder / name

    less = changed("less.weights.h5", lambda file: file["layers"].pop("conv2d"))
    assert "does not fit keras:MobileNet" in error(less)
    link = changed("out.weights.h5", lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")))
    assert "refused" in error(link)
    outside = [("/etc/passwd", 0, 16)]
    far = changed("far.weights.h5", lambda file: file.create_dataset("x", (4,), "f4", external=outside))
    assert "outside itself" in error(far)
    bomb = changed("bomb.weights.h5", lambda file: file.create_dataset("x", (2**40,), "f4", chunks=True))
    assert "limit" in error(bomb)
    (folder / "text.h5").write_text("no weights")
    assert "cannot be read as HDF5" in error(folder / "text.h5")


def test_keras_files_that_lie_are_refused(folder):
    with zipfile.ZipFile(folder / "good.keras") as good, zipfile.ZipFile(folder / "code.keras", "w") as code:
        for entry in good.namelist():
            content = good.read(entry)
            if entry == "config.json":
                config = json.loads(content)
                config["config"]["layers"].append({"class_name": "Lambda", "config": {}})
                content = json.dumps(config).encode()
            code.writestr(entry, content)
    assert "Lambda" in error(folder / "code.keras")
    with zipfile.ZipFile(folder / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert "not a .keras file" in error(folder / "empty.keras")


def test_names_and_arguments_that_cannot_be_used_are_refused(folder):
    good = folder / "good.keras"
    assert "did you mean MobileNet" in error(good, "MobileNett")
    assert "leave it out" in error(good, "MobileNet?weights=imagenet")
    assert "cannot be built" in error(good, "MobileNet?depth=many")
    assert "does not fit" in error(good, "MobileNetV2")
