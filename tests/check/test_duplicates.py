"""Duplicates: identical files, changed copies, leaks and conflicting labels."""

import shutil

import pytest
from helpers.faults import edit, findings_by_kind, image_path, mirror


def crop(image):
    width, height = image.size
    return image.crop((width // 8, height // 10, width * 7 // 8, height * 9 // 10))


COPIES = {
    "re-encoded": (lambda image: image, 45),
    "mirrored": (mirror, 90),
    "resized": (lambda image: image.resize((image.width // 2, image.height // 2)), 90),
    "cropped": (crop, 90),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_changed_copy_is_a_near_duplicate(photos, change):
    function, quality = COPIES[change]
    original = image_path(photos, number=7)
    copy = edit(original, function, original.with_name("copy.jpg"), quality)
    findings = findings_by_kind(photos)
    assert {str(original), copy} in findings["near_duplicate"]
    assert findings["exact_duplicate"] == findings["leak"] == findings["conflicting_labels"] == []


def test_identical_files_are_duplicates_leaks_or_conflicting_labels(photos):
    first, second, third = (image_path(photos, number=n) for n in (1, 2, 3))
    duplicate = shutil.copy(first, first.with_name("again.jpg"))
    leak = shutil.copy(second, photos / "validation" / "horses" / "seen.jpg")
    conflict = shutil.copy(third, photos / "train" / "humans" / "other.jpg")
    findings = findings_by_kind(photos)
    assert findings["exact_duplicate"] == [{str(first), str(duplicate)}]
    assert findings["leak"] == [{str(second), str(leak)}]
    assert findings["conflicting_labels"] == [{str(third), str(conflict)}]


def test_a_mirrored_image_in_another_split_is_a_leak(photos):
    original = image_path(photos, number=4)
    copy = edit(original, mirror, photos / "validation" / "horses" / "seen.jpg")
    assert {str(original), copy} in findings_by_kind(photos)["leak"]
