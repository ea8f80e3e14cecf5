"""Standard output holds the result and nothing else, standard error what we say: not what libraries print past us."""

import io
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

HEADSTART = [sys.executable, "-m", "headstart"]
CHATTER = b"ZIPDecode"

NOISY = """
import logging, os, sys, warnings
import numpy as np
from headstart import data

real = data.from_images

def noisy(images):
    for descriptor in (1, 2):
        os.write(descriptor, b"noise\\n")  # as a library in C does
        os.system(f"echo noise >&{descriptor}")
    warnings.simplefilter("always")
    warnings.warn("noise")
    np.log(np.zeros(1))
    logging.getLogger("library").error("noise")
    return real(images)

data.from_images = noisy
from headstart.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def damaged_tiff(tmp_path_factory):
    """A TIFF whose compressed pixels are damaged, which libtiff says on descriptor 2."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression="tiff_adobe_deflate")
    data = bytearray(stream.getvalue())
    data[400:600] = bytes([255]) * 200
    path = tmp_path_factory.mktemp("tiff") / "damaged.tif"
    path.write_bytes(data)
    return path


def test_libtiff_is_not_heard_and_the_image_is_named(damaged_tiff, model_folder, photos):
    code = "import sys; from PIL import Image; Image.open(sys.argv[1]).load()"
    heard = subprocess.run([sys.executable, "-c", code, damaged_tiff], capture_output=True)
    assert CHATTER in heard.stderr + heard.stdout  # else this test shows nothing
    images = [damaged_tiff, photos / "train" / "disc" / "000.jpg"]
    ran = subprocess.run([*HEADSTART, "predict", model_folder, *images, "--json"], capture_output=True)
    assert ran.returncode == 1
    assert [json.loads(line)["path"] for line in ran.stdout.splitlines()] == [str(image) for image in images]
    reason = "Damaged or cut off: decoder error -2."
    assert ran.stderr.decode() == f"1 image could not be read:\n  {damaged_tiff}: {reason}\n"


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_what_libraries_print_is_shown_on_request_only_and_never_as_output(model_folder, photos, is_asked_for):
    image = photos / "train" / "disc" / "000.jpg"
    environment = {**os.environ, "PYTHONWARNINGS": "default" if is_asked_for else ""}
    command = [sys.executable, "-c", NOISY, "predict", model_folder, image, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["classes"][0]["class"] == "disc"
    assert ran.stderr.count("noise") >= 5 if is_asked_for else ran.stderr == ""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo terminals")
def test_a_terminal_is_still_one(photos):
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    command = [*HEADSTART, "check", photos, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    parts = []

    def read_terminal():  # beside the result: a slow machine shows more than a terminal that nobody reads can hold
        with suppress(OSError):  # of Linux, at the end
            while part := os.read(ours, 65536):
                parts.append(part)

    reader = threading.Thread(target=read_terminal)
    reader.start()
    out = process.stdout.read()
    process.wait()
    process.stdout.close()
    reader.join()
    os.close(ours)
    shown = b"".join(parts)
    assert process.returncode == 0
    json.loads(out)
    assert b"Reading features" in shown
    assert b"\x1b[" in shown


def test_a_crash_of_a_library_is_not_silent():
    code = """
import os
import headstart.cli
headstart.cli.main = os.abort
from headstart.__main__ import main
main()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode < 0
    assert ran.stdout == ""
    assert "Aborted" in ran.stderr
