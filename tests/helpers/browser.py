"""A headless Chromium that opens pages written by Headstart, and axe-core, which finds what keeps people out."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from helpers.photos import ROOT

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
AXE = "HEADSTART_AXE"  # names a file axe.min.js
AXE_PACKAGE = "axe-core@4.14.1"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
AXE_CACHE = ROOT / ".pytest_cache" / "axe-core" / f"{AXE_SHA256[:16]}.js"


def start(profile, downloads=None, arguments=()):
    """A driver of the browser, which keeps its profile in a folder; the test is skipped where there is no browser."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*ARGUMENTS, *arguments, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=Service(DRIVER))
    if downloads is not None:
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    return browser


def show(driver, page, width=1280, height=900, **media):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    driver.get_log("performance")
    driver.get(page.as_uri())
    until = time.monotonic() + 30
    while not elements(driver, "footer") and time.monotonic() < until:  # the last element: the page is there
        time.sleep(0.05)


def elements(driver, selector):
    return driver.find_elements("css selector", selector)


def element(driver, selector):
    (match,) = elements(driver, selector)
    return match


def click(driver, element):
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


@cache
def axe_script():
    """The text of axe-core: of the file that HEADSTART_AXE names, else as npm has it, by hash; None without one."""
    if os.environ.get(AXE):
        return Path(os.environ[AXE]).read_text("utf-8")
    if not AXE_CACHE.exists():
        with tempfile.TemporaryDirectory() as folder:
            content = _fetch_axe(folder)
        if content is None or sha256(content).hexdigest() != AXE_SHA256:
            return None
        AXE_CACHE.parent.mkdir(parents=True, exist_ok=True)
        AXE_CACHE.write_bytes(content)
    content = AXE_CACHE.read_bytes()
    assert sha256(content).hexdigest() == AXE_SHA256, f"{AXE_CACHE} was changed; delete it"
    return content.decode()


def _fetch_axe(folder):
    """The content of axe.min.js from npm's registry, None where there is no npm or it cannot be reached."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    command = [npm, "pack", "--silent", "--ignore-scripts", "--fetch-retries=0", AXE_PACKAGE]
    with suppress(subprocess.SubprocessError, OSError, KeyError):
        packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
        with tarfile.open(Path(folder, packed.stdout.split()[-1])) as archive:
            return archive.extractfile("package/axe.min.js").read()
    return None


def accessibility_violations(driver, page, **options):
    """What axe-core calls serious or critical on a page, each with its first elements; skips where axe-core is missing.

    axe-core is not among our dependencies: see ``axe_script``.
    """
    driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})  # for the script of the test alone
    try:
        show(driver, page, **options)
        driver.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
        return run_axe(driver)
    finally:
        driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})


def run_axe(driver):
    """What axe-core calls serious or critical on the page that is shown, which must bypass its policy."""
    script = axe_script()
    if script is None:
        pytest.skip(f"needs axe-core, and npm to fetch it; or let {AXE} name a file axe.min.js")
    driver.execute_script(script)
    driver.set_script_timeout(300)  # seconds; a busy machine takes long over ten thousand elements
    violations, passes = driver.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        axe.run(document).then((result) => done([
            result.violations.map((v) => [v.impact, v.id, v.nodes.slice(0, 3).map((node) => node.html)]),
            result.passes.length,
        ]));
        """
    )
    assert passes > 10  # it has looked at the page
    return [violation for violation in violations if violation[0] in ("serious", "critical")]
