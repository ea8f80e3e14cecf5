"""Driving the pages of ``serve`` and ``studio``: waiting, media, and files that are dropped or pasted."""

import contextlib
import os
import signal
import subprocess
import sys
import time


def wait_for(condition, seconds=120):
    """The first true value of a condition; fails when there is none in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(Exception):  # the page is being drawn
            if value := condition():
                return value
        time.sleep(0.05)
    value = condition()
    assert value, "it has not come to pass"
    return value


def set_media(driver, width=1280, height=900, scheme="light"):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})


def drop(driver, paths, selector="body"):
    """Drop files on an element: Selenium cannot drag from a desktop, so a file input hands the files to the event."""
    field = driver.execute_script(
        """
        const field = document.createElement("input");
        field.type = "file"; field.multiple = true; field.ariaLabel = "of the test";
        document.body.append(field);
        return field;
        """
    )
    field.send_keys("\n".join(str(path) for path in paths))
    driver.execute_script(
        """
        const [field, target] = [arguments[0], document.querySelector(arguments[1])];
        const dataTransfer = new DataTransfer();
        for (const file of field.files) dataTransfer.items.add(file);
        field.remove();
        for (const name of ["dragenter", "dragover", "drop"]) {
          target.dispatchEvent(new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer }));
        }
        """,
        field,
        selector,
    )


def paste(driver, path):
    """Paste a file."""
    field = driver.execute_script(
        "const field = document.createElement('input'); field.type = 'file'; document.body.append(field); return field;"
    )
    field.send_keys(str(path))
    driver.execute_script(
        """
        const clipboardData = new DataTransfer();
        clipboardData.items.add(arguments[0].files[0]);
        arguments[0].remove();
        document.dispatchEvent(new ClipboardEvent("paste", { bubbles: true, cancelable: true, clipboardData }));
        """,
        field,
    )


@contextlib.contextmanager
def command(*arguments, seconds=120):
    """Run a command of Headstart that serves, and yield the address that it prints; it is stopped by a signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            address = next((word.rstrip(".,;") for word in line.split() if word.startswith("http://")), None)
            if address:
                break
        else:
            raise AssertionError("".join(lines))
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(seconds)
        process.stdout.close()
