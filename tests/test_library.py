"""A call of the library leaves the process as it was, and says what it does under the logger "headstart"."""

import json
import logging
import shutil
import subprocess
import sys

import pytest

import headstart as hs

STATE = """
import csv, gc, json, locale, logging, os, random, signal, sys, threading, time, warnings
import numpy as np
import PIL.Image, PIL.ImageFile
import sklearn.linear_model, threadpoolctl
import headstart as hs
from headstart.machine import import_onnxruntime

for name in hs.__all__:
    getattr(hs, name)
import_onnxruntime()
try:
    import openvino
except ImportError:
    pass
PIL.Image.init()

def state():
    umask = os.umask(0)
    os.umask(umask)
    return {
        "signals": {int(s): repr(signal.getsignal(s)) for s in signal.valid_signals()},
        "warnings": [repr(f) for f in warnings.filters] + [repr(warnings.showwarning)],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": sorted(t.name for t in threading.enumerate()),
        "pixels": PIL.Image.MAX_IMAGE_PIXELS,
        "truncated": PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        "locale": locale.setlocale(locale.LC_ALL),
        "umask": umask,
        "logging": [
            repr(logging.root.handlers), logging.root.level, logging.root.manager.disable,
            repr(logging.getLogger("headstart").handlers), logging.getLogger("headstart").level,
        ],
        "streams": [repr(s) for s in (sys.stdin, sys.stdout, sys.stderr, sys.excepthook)],
        "descriptors": sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else [],
        "errors": np.geterr(),
        "random": [repr(random.getstate()), repr(np.random.get_state())],
        "collector": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
        "path": list(sys.path),
        "recursion": sys.getrecursionlimit(),
        "fields": csv.field_size_limit(),
        "digits": sys.get_int_max_str_digits(),
        "blas": sorted(
            (p["internal_api"], p["num_threads"]) for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"
        ),
    }

data, model, runtime = sys.argv[1:]
compute = hs.Compute(runtime)
before = state()
result = hs.fit_dataset(hs.open_dataset(data), hs.FitOptions(compute=compute))
result.save(model)
predictor = hs.Predictor.load(model, compute)
predictor.predict([f"{data}/train/disc/000.jpg", f"{data}/nothing.jpg"])
try:
    hs.Predictor.load(data)
except hs.HeadstartError:
    pass
del predictor, result
gc.collect()
until = time.monotonic() + 30  # threads that are told to end are not waited for
while threading.active_count() > len(before["threads"]) and time.monotonic() < until:
    time.sleep(0.02)
after = state()
after["descriptors"] = sorted({*after["descriptors"], *before["descriptors"]})  # ONNX Runtime's import closes some late
print(json.dumps({name: [before[name], after[name]] for name in before if before[name] != after[name]}))
"""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_fitting_and_predicting_leave_no_state_in_the_process(photos, tmp_path, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    command = [sys.executable, "-c", STATE, photos, tmp_path / "model", runtime]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {}
    assert ran.stderr == ""


def test_nothing_is_printed_unless_logging_is_set_up():
    root = logging.getLogger("headstart")
    assert [type(handler) for handler in root.handlers] == [logging.NullHandler]
    assert root.level == logging.NOTSET
    assert root.propagate


def messages(caplog, level):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and record.name.startswith("headstart.")
    ]


def test_a_fit_and_a_prediction_say_what_they_do(photos, tmp_path, caplog):
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    (data / "train" / "disc" / "damaged.jpg").write_bytes(b"nothing")
    (data / "train" / "notes.txt").write_text("x")
    caplog.set_level(logging.DEBUG, "headstart")
    options = hs.FitOptions(compute=hs.Compute("onnxruntime"))
    for computed, cached in ((40, 0), (0, 40)):
        caplog.clear()
        result = hs.fit_dataset(hs.open_dataset(data), options)
        told = messages(caplog, logging.INFO)
        assert f"{data} read as split/class/image: 41 images of 2 classes, 1 file skipped" in told
        assert f"{data}: 41 images, {cached} from the cache, {computed} computed, 1 could not be read" in told
        assert messages(caplog, logging.WARNING) == list(result.notes)
        details = messages(caplog, logging.DEBUG)
        assert f"skipped '{data}/train/notes.txt': not an image" in details
        assert [m for m in details if m.startswith(f"could not be read: '{data}/train/disc/damaged.jpg': ")]


def test_what_is_wrong_with_the_cache_is_logged(tmp_path, caplog):
    from headstart.features import FeatureCache

    caplog.set_level(logging.INFO, "headstart")
    (tmp_path / "file").write_text("x")
    with FeatureCache(tmp_path / "file") as cache:
        assert len(cache.notes) == 1
        assert messages(caplog, logging.INFO) == cache.notes
