"""How large the pages of a report and of a check are, and how soon a browser shows them: 10 classes, 2,000 images.

    python benchmarks/report_page.py [--runs 5]

The images are drawn: ten classes, each like its neighbour, a few wrong labels, and bursts of nearly the same image.
Needs chromium, chromedriver and selenium. The time to the first paint is what the browser measures (first contentful
paint), of a page that it reads from the disk.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from measure import COMMAND, Scratch, parse_runs, print_table, run_process
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from helpers.browser import show, start  # as the tests open pages

CLASSES = 10
PER_CLASS = {"train": 160, "validation": 40}
SCREENS = (("1280", 1280, 900, "light"), ("1280, dark", 1280, 900, "dark"), ("390", 390, 844, "light"))


def draw(c: int, scene: np.random.Generator, shot: np.random.Generator) -> Image.Image:
    """Draw class ``c``: the shape of its pair of classes in one of two colours; shots of one scene differ by noise."""
    y, x = np.mgrid[:120, :160] / 120
    center_x, center_y, radius, angle = scene.uniform((0.4, 0.3, 0.15, 0), (0.9, 0.7, 0.35, 3))
    distance = np.hypot(x - center_x, y - center_y)
    along = (x - center_x) * np.cos(angle) + (y - center_y) * np.sin(angle)
    shapes = (
        distance < radius,
        np.abs(along) < radius / 3,
        (np.sin(40 * along) > 0) & (distance < 1.5 * radius),
        np.maximum(np.abs(x - center_x), np.abs(y - center_y)) < 0.8 * radius,
        (distance < radius) & (distance > 0.55 * radius),
    )
    front = np.array([140, 120, 90]) + (35 if c % 2 else -35) * np.array([1, 0.3, -0.6]) + scene.normal(0, 22, 3)
    back = scene.integers(60, 220, 3)
    pixels = np.where(shapes[c // 2][..., None], front, back) + shot.normal(0, 18, (120, 160, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_data(folder: Path) -> Path:
    """Write the images into class folders; one image in a hundred shows another class."""
    rng = np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for c in range(CLASSES):
            target = folder / split / f"class {c}"
            target.mkdir(parents=True)
            burst, seed = 0, 0
            for i in range(count):
                if not burst:
                    burst, seed = int(rng.choice([1, 1, 1, 4])), int(rng.integers(1 << 30))
                burst -= 1
                shown = c if rng.random() > 0.01 else (c + 3) % CLASSES
                draw(shown, np.random.default_rng(seed), rng).save(target / f"{i:03}.jpg", quality=88)
    return folder


def main() -> None:
    runs = parse_runs(__doc__)
    print(f"load {os.getloadavg()[0]:.1f}")
    with Scratch() as scratch:
        data = write_data(scratch.path / "data")
        cache = scratch.cache()
        run_process([COMMAND, "fit", data, "--backbone", "headstart-s", "-o", scratch.path / "model"], cache)
        check = scratch.path / "check.html"
        run_process([COMMAND, "check", data, "--backbone", "headstart-s", "--report", check], cache)
        driver = start(tempfile.mkdtemp(dir=scratch.path))
        rows = []
        for page in (scratch.path / "model" / "report.html", check):
            row: dict[str, object] = {"page": page.name, "MB": page.stat().st_size / 1e6}
            for name, width, height, scheme in SCREENS:
                times = []
                for _ in range(runs):
                    show(driver, page, width=width, height=height, prefers_color_scheme=scheme)
                    paint = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
                    times.append(float(driver.execute_script(paint)) / 1000)
                row[f"first paint, {name} (s)"] = median(times)
            row["height at 390 (px)"] = driver.execute_script("return document.documentElement.scrollHeight")
            rows.append(row)
        driver.quit()
    print_table(rows)


if __name__ == "__main__":
    main()
