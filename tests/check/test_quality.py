"""Quality issues: each kind is found where it was planted, and only there."""

import pytest
from helpers.faults import edit, findings_by_kind, image_path
from PIL import Image, ImageFilter

FAULTS = {
    "dark": lambda image: image.point(lambda value: value // 12),
    "bright": lambda image: image.point(lambda value: 245 + value // 30),
    "empty": lambda image: Image.blend(
        image.filter(ImageFilter.GaussianBlur(6)), Image.new("RGB", image.size, "grey"), 0.95
    ),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(6)),
    "tiny": lambda image: image.resize((20, 20)),
    "odd_shape": lambda image: image.resize((400, 100)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_quality_issue_is_found(photos, kind):
    changed = edit(image_path(photos, number=5), FAULTS[kind])
    assert findings_by_kind(photos)[kind] == [{changed}]


def test_a_sharp_image_is_not_blurred_because_of_its_size(photos):
    edit(image_path(photos, number=5), lambda image: image.resize((6 * image.width, 6 * image.height)))
    assert findings_by_kind(photos)["blurred"] == []


def test_a_black_frame_is_empty_and_a_dark_photograph_is_not(photos):
    black = edit(image_path(photos, number=5), lambda image: Image.new("RGB", image.size, (3, 3, 4)))
    dark = edit(image_path(photos, number=6), FAULTS["dark"])
    findings = findings_by_kind(photos)
    assert findings["empty"] == [{black}]
    assert sorted(map(str, findings["dark"])) == sorted([str({black}), str({dark})])
