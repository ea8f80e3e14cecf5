"""From a fresh machine: the wheel in its own environment, ``fit``, ``export --to web``, and the page in a browser."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from helpers.photos import ROOT

from headstart.export.browser import find_chromium


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def headstart(tmp_path_factory):
    """A function that runs the command of a fresh environment, in an empty folder, and returns what it prints."""
    folder = tmp_path_factory.mktemp("fresh")
    bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    commands = [
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT],
        [sys.executable, "-m", "venv", folder / "venv"],
    ]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("headstart*.whl")
    installed = subprocess.run(
        [bin / "pip", "install", "--quiet", "--no-compile", wheel], capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"needs a package index: {installed.stderr.strip().splitlines()[-1]}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADSTART"))}
    environment["HEADSTART_CACHE"] = str(folder / "cache")

    def run(*arguments):
        command = [bin / "headstart", *map(str, arguments)]
        completed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    run.folder = folder
    return run


@pytest.mark.exports
@pytest.mark.slow
def test_the_page_of_a_fresh_environment_answers_like_predict(headstart, photos, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs a browser: apt-get install chromium-driver")
    headstart("fit", photos, "-o", "model", "--backbone", "headstart-s", "--decode", "full")
    exported = headstart("export", "model", "--to", "web")
    assert "onnxruntime-web in Chromium" in exported
    assert "Not proven here" not in exported
    paths = sorted((photos / "validation").rglob("*.jpg"))
    rows = [json.loads(line) for line in headstart("predict", "model", *paths, "--json").splitlines()]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=headstart.folder / "model-web"))
    Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = find_chromium()
    arguments = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}")
    for argument in arguments:
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        wait = WebDriverWait(browser, 120)
        wait.until(lambda b: b.find_element("id", "file").is_enabled())
        browser.find_element("id", "file").send_keys("\n".join(map(str, paths)))
        wait.until(lambda b: len(b.find_elements("css selector", "#results .answer")) == len(paths))
        cards = browser.find_elements("css selector", "#results .answer")
        texts = [card.text for card in reversed(cards)]
    finally:
        browser.quit()
        server.shutdown()
        server.server_close()
    for row, text in zip(rows, texts, strict=True):
        assert text.splitlines()[0] == ("none of these" if row["none_of_these"] else row["classes"][0]["class"])
        shown = float(text.split("%")[0].split()[-1]) / 100
        assert shown == pytest.approx(row["classes"][0]["probability"], abs=0.026)
