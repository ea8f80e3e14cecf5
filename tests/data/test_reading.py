"""Files are read whole, within limits."""

import io
import os

import pytest

from headstart.data import from_images, open_dataset, reading
from headstart.errors import DataError, ImageError, OptionError
from headstart.model.folder_files import check_output_folder


@pytest.mark.parametrize("path", ["missing.jpg", "/dev/zero", "."])
def test_paths_that_cannot_be_read_are_refused_when_read(path):
    with pytest.raises(ImageError):
        from_images([path]).read(0)


@pytest.mark.parametrize("expected_size", [0, 1, 9, 10, 11, 10**9])
def test_all_bytes_are_read_whatever_size_the_file_system_reports(expected_size, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 20)
    assert reading.read_stream(io.BytesIO(b"0123456789"), "a", expected_size) == b"0123456789"
    with pytest.raises(ImageError, match="more bytes than the limit"):
        reading.read_stream(io.BytesIO(bytes(21)), "a", expected_size)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are POSIX")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    for name in ("a.jpg", "t.csv", "config.json"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(ImageError, match="Not a regular file"):
        from_images([tmp_path / "a.jpg"]).read(0)
    with pytest.raises(DataError, match="Not a regular file"):
        open_dataset(tmp_path / "t.csv")
    with pytest.raises(OptionError, match="not a Headstart model"):
        check_output_folder(tmp_path)
