"""Where the images and networks of the lesson notebooks come from: the web, a folder, or what is built in, loudly."""

import io
import socket
import zipfile
from hashlib import sha256

import pytest
from helpers.photos import write_photos
from helpers.servers import serving_folder

from headstart import lessons
from headstart.backbones.providers import PROVIDERS
from headstart.data import download, public_datasets
from headstart.data.public_datasets import Archive, PublicDataset
from headstart.errors import BackboneError, MissingExtraError, OptionError


@pytest.fixture(autouse=True)
def _no_local_folder(monkeypatch):
    monkeypatch.delenv(lessons.LOCAL, raising=False)
    monkeypatch.setattr(lessons, "SAMPLE_TRAIN", 10)
    monkeypatch.setattr(lessons, "SAMPLE_VALIDATION", 4)


def offer(monkeypatch, url, archive=b""):
    """Let ``ants-bees`` be this archive at this address."""
    entry = Archive(f"{url}/data.zip", len(archive), sha256(archive).hexdigest(), root="photos")
    dataset = PublicDataset((entry,), "CC0", "https://example.org")
    monkeypatch.setitem(public_datasets.PUBLIC_DATASETS, "ants-bees", dataset)


def zipped(folder):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, f"photos/train/{path.parent.name}/{path.name}")
    return stream.getvalue()


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_real_images_are_downloaded_once_and_every_so_many_are_taken_in_order(tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    write_photos(photos, 6)
    (tmp_path / "web").mkdir()
    archive = zipped(photos)
    (tmp_path / "web" / "data.zip").write_bytes(archive)
    with serving_folder(tmp_path / "web") as url:
        offer(monkeypatch, url, archive)
        images = lessons.images("ants-bees", tmp_path / "lesson")
    assert images.is_real
    assert images.source == "ants-bees"
    out = capsys.readouterr().out
    assert f"Downloading ants-bees to {tmp_path / 'lesson' / 'ants-bees'}" in out
    assert "MB" in out
    count = len(images.dataset)
    assert f"Images: ants-bees ({count} for train)" in out
    again = lessons.images("ants-bees", tmp_path / "lesson")  # the server is gone
    assert len(again.dataset) == count
    paths = [item.path for item in again.split("train").items]
    assert paths == sorted(paths)
    assert [item.path for item in again.split("train", every=3).items] == paths[::3]


def test_without_a_connection_the_sample_is_taken_and_nobody_can_overlook_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    offer(monkeypatch, f"http://127.0.0.1:{closed_port()}")
    images = lessons.images("ants-bees", tmp_path / "lesson")
    assert not images.is_real
    assert images.source == "the built-in sample"
    out = capsys.readouterr().out
    assert "!! ants-bees could not be downloaded: 127.0.0.1" in out
    assert "!! Its figures are NOT those of the course." in out
    assert "!" * 80 in out
    assert len(images.split("train")) == 10
    assert [len(lessons.images("ants-bees", tmp_path / "lesson").split(name)) for name in ("train", "validation")] == [
        10,
        4,
    ]


def test_a_folder_of_ones_own_is_used_and_no_path_of_it_is_shown(tmp_path, monkeypatch, capsys, photos):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "ants-bees").symlink_to(photos)
    monkeypatch.setenv(lessons.LOCAL, str(tmp_path / "local"))
    images = lessons.images("ants-bees", tmp_path / "lesson")
    assert images.is_real
    assert len(images.dataset) == 40
    assert str(tmp_path) not in capsys.readouterr().out
    with pytest.raises(OptionError, match="Unknown dataset"):
        lessons.images("cats", tmp_path / "lesson")


@pytest.mark.parametrize("error", [BackboneError("no connection"), MissingExtraError("no Keras")])
def test_a_network_that_cannot_be_had_is_replaced_by_the_built_in_one_loudly(error, monkeypatch, capsys):
    def fail(rest, options, taps):
        raise error

    monkeypatch.setitem(PROVIDERS, "keras", fail)
    network = lessons.network("keras:InceptionV3", "mixed7/flat", 150, otherwise=("headstart-s", "stage4"))
    assert (network.id, network.cut, network.options) == ("headstart-s", "stage4", None)
    assert network.backbone.id == "headstart-s"
    assert not network.is_published
    out = capsys.readouterr().out
    assert f"!! InceptionV3 cannot be used: {error}" in out
    assert "it is NOT the network of the course" in out


def test_published_weights_are_the_default_and_a_file_of_ones_own_is_never_replaced(tmp_path, monkeypatch, capsys):
    requested = []

    def load(rest, options, taps):
        requested.append((rest, options, taps))
        if options.weights:
            raise BackboneError("it does not fit")
        return PROVIDERS["headstart-s"]("", lessons.InputOptions(), ())

    monkeypatch.setitem(PROVIDERS, "keras", load)
    network = lessons.network("keras:InceptionV3", "mixed7/flat", 150, otherwise=("headstart-s", "stage4"))
    assert network.is_published
    assert (network.id, network.cut) == ("keras:InceptionV3", "mixed7/flat")
    assert requested == [("InceptionV3", lessons.InputOptions(size=(150, 150)), ("mixed7/flat",))]
    assert "Weights: " in capsys.readouterr().out
    (tmp_path / "InceptionV3.weights.h5").write_bytes(b"damaged")
    monkeypatch.setenv(lessons.LOCAL, str(tmp_path))
    with pytest.raises(BackboneError, match="does not fit"):
        lessons.network("keras:InceptionV3", "mixed7/flat", 150, otherwise=("headstart-s", "stage4"))
