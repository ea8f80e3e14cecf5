"""Quality issues: each kind is found where it was planted, and only there."""

import pytest
from helpers.faults import edit, findings_by_kind, image_path
from PIL import ImageFilter

FAULTS = {
    "dark": lambda image: image.point(lambda value: value // 12),
    "bright": lambda image: image.point(lambda value: 245 + value // 30),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(6)),
    "tiny": lambda image: image.resize((20, 20)),
    "odd_shape": lambda image: image.resize((400, 100)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_quality_issue_is_found(photos, kind):
    changed = edit(image_path(photos, number=5), FAULTS[kind])
    assert findings_by_kind(photos)[kind] == [{changed}]
