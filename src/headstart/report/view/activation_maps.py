"""Class activation maps as transparent overlays."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from headstart.report.data import ActivationMap, Report

POSITIVE_COLOUR, NEGATIVE_COLOUR = (0, 90, 200), (230, 110, 0)
MAX_OPACITY = 165  # of 255
PIXELS_PER_LOCATION = 8


@dataclass(frozen=True)
class MapSection:
    """Activation maps under one heading, each with its overlay as a data URL."""

    title: str
    maps: tuple[tuple[ActivationMap, str], ...]


def activation_map_sections(report: Report) -> list[MapSection]:
    """Return the activation maps of misclassified images and of typical ones; empty sections are left out."""
    errors: list[tuple[ActivationMap, str]] = []
    typical: list[tuple[ActivationMap, str]] = []
    for activation_map in report.activation_maps:
        section = typical if report.images[activation_map.image].is_correct else errors
        section.append((activation_map, _overlay(activation_map.grid)))
    sections = [MapSection("Errors", tuple(errors)), MapSection("Typical images", tuple(typical))]
    return [section for section in sections if section.maps]


def _overlay(grid: Sequence[Sequence[float]]) -> str:
    """Return a PNG as a data URL: blue for positive values, orange for negative ones, opaque where they are large."""
    values = np.array(grid)
    relative = values / max(float(np.abs(values).max()), 1e-12)
    pixels = np.empty((*relative.shape, 4), np.uint8)
    pixels[..., :3] = np.where(relative[..., None] > 0, POSITIVE_COLOUR, NEGATIVE_COLOUR)
    pixels[..., 3] = np.rint(MAX_OPACITY * np.abs(relative)).astype(np.uint8)
    # Enlarged here, where Pillow interpolates premultiplied colours: browsers would mix in the colour of transparent
    # pixels.
    height, width = relative.shape
    size = (width * PIXELS_PER_LOCATION, height * PIXELS_PER_LOCATION)
    enlarged = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    enlarged.save(stream, "PNG", optimize=False)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
