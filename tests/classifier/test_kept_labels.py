"""Models of several labels an image that keep rows: parts, updates and what is forgotten give the bytes of one fit."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.labels import write_labelled
from hypothesis import given
from hypothesis import strategies as st

import headstart as hs
from headstart.classifier.embed_folder import embed_to_folder
from headstart.classifier.embed_sharded import Where, embed_sharded
from headstart.classifier.fit_labels import fit_multi_label
from headstart.classifier.forget import forget_images
from headstart.classifier.kept_rows import embedded_from, usable_rows, with_joint_labels
from headstart.classifier.parts import merge_parts, read_part
from headstart.classifier.refit import fit_features, options_from_dict
from headstart.classifier.update import update_model
from headstart.data import Item
from headstart.data.label_sets import label_matrix, label_text, with_label_text
from headstart.data.reading import ReadOptions
from headstart.errors import DataError, OptionError
from headstart.features.rows import FeatureRows, Rows, merge
from headstart.features.rows_folder import FILE, check_labels, read_rows
from headstart.model.folder import read_model

COMPUTE = hs.Compute("onnxruntime")
OPTIONS = hs.FitOptions("headstart-s", compute=COMPUTE, target_recall=0.8, seed=3, coverage=0.9)
FILES = ("model.onnx", "head.safetensors", "config.json")
MULTI = ReadOptions(multi_label=True)


def contents(model):
    return {name: (Path(model) / name).read_bytes() for name in FILES}


def write_table(file, rows):
    file.write_text("\n".join(["path,labels,split", *rows]), "utf-8")
    return hs.open_dataset(file, MULTI)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The folder of images, and the rows of their table: unknown labels, an unlabelled image, copies, a broken one."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [*write_labelled(folder, 56), *write_labelled(folder, 12, seed=1, split="validation")]
    rows[1] = "train_001.png,?,train"
    rows[2] = "train_002.png,disc;?,train"
    rows[3] = "train_003.png,?disc;stripes,train"
    rows[4] = rows[4].replace("train_004.png,", "train_004.png,?square;").replace("?square;square", "square")
    for copy, source, cell in (
        ("same", 8, rows[8].split(",")[1]),
        ("less", 9, "?"),
        ("other", 10, "?disc;?square;?stripes"),
    ):
        (folder / f"{copy}.png").write_bytes((folder / f"train_{source:03}.png").read_bytes())
        rows.append(f"{copy}.png,{cell},train")
    (folder / "broken.png").write_bytes(b"\x89PNG no image")
    rows += ["broken.png,disc;stripes,train", "train_020.png,disc,test"]
    return folder, rows


@pytest.fixture(scope="module")
def kept(rows, tmp_path_factory):
    """The folder of a model of these images that keeps its rows. Read only."""
    folder, lines = rows
    dataset = write_table(folder / "labels.csv", lines)
    result = fit_multi_label(dataset, replace(OPTIONS, cache=False), keep_features=True)
    model = tmp_path_factory.mktemp("kept") / "model"
    result.save(model)
    return model


def test_what_is_kept_says_what_is_present_absent_and_unknown(rows, kept):
    features = read_rows(kept / "features")
    assert features.source.is_multi_label
    assert json.loads((kept / "features" / FILE).read_text("utf-8"))["format"] == 2
    items = hs.open_dataset(rows[0] / "labels.csv", MULTI).items
    table = {item.path: item for item in items if item.split != "test"}
    assert {*features.rows.paths} == {*table} - {"broken.png"}
    for path, text in zip(features.rows.paths, features.rows.labels, strict=True):
        item = with_label_text(Item(path, None, "train"), text)
        assert (set(item.labels), set(item.unknown), item.is_rest_unknown) == (
            set(table[path].labels),
            set(table[path].unknown),
            table[path].is_rest_unknown,
        )
    broken = [image for image in features.source.unread if image.path == "broken.png"]
    assert [image.label for image in broken] == ['[["disc","stripes"],[],false]']
    run = read_model(kept).run
    assert run["problem_type"] == "multi_label_classification"
    assert (run["options"]["target_recall"], run["options"]["seed"]) == (0.8, 3)
    assert hs.Predictor.load(kept, COMPUTE).verify().images == 8


@pytest.mark.parametrize("count", [1, 7, 30])
def test_any_parts_give_the_model_of_one_fit(kept, tmp_path, count):
    whole = read_part(kept)
    order = np.random.default_rng(count).permutation(len(whole.rows))
    parts = [FeatureRows(whole.source, whole.rows.select(order[i::count])) for i in range(count)]
    merged = merge(parts, [str(i) for i in range(count)])
    options, _ = options_from_dict(read_model(kept).run["options"], (), COMPUTE)
    assert options.label_target == ("recall", 0.8)
    fit_features(merged, options).save(tmp_path / "model")
    assert contents(tmp_path / "model") == contents(kept)


def test_tables_with_other_label_names_give_the_model_of_one_table(rows, tmp_path):
    """Of a table a label that it does not name holds of none of its images, as in one table of all."""
    folder, lines = rows
    of_square = [line for line in lines if "square" in line]
    of_others = [line for line in lines if "square" not in line]
    parts = []
    for name, part in (("a", of_square), ("b", of_others)):
        write_table(folder / f"{name}.csv", part)
        dataset = hs.open_dataset(folder / f"{name}.csv", MULTI)
        embed_to_folder(dataset, tmp_path / name, OPTIONS, shard_images=20)
        parts.append(read_part(tmp_path / name))
    assert "square" not in hs.open_dataset(folder / "b.csv", MULTI).label_names
    fit_features(merge(parts, ["a", "b"]), OPTIONS).save(tmp_path / "merged")
    whole = fit_multi_label(write_table(folder / "ab.csv", of_others + of_square), OPTIONS, keep_features=True)
    whole.save(tmp_path / "whole")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


def test_processes_write_the_rows_of_one(rows, kept, tmp_path):
    folder, lines = rows
    table = folder / "labels.csv"
    write_table(table, lines)
    embed_sharded(str(table), tmp_path / "shards", OPTIONS, MULTI, Where("processes", 2))
    once = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    again = embed_sharded(str(table), tmp_path / "shards", OPTIONS, MULTI, Where("processes", 1))
    assert again.found == again.shards > 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == once
    fit_features(merge_parts([tmp_path / "shards"]), OPTIONS).save(tmp_path / "model")
    assert contents(tmp_path / "model") == contents(kept)
    lines = [line.replace("train_005.png,", "train_005.png,?square;") for line in lines]
    write_table(table, [line.replace("?square;square", "square") for line in lines])
    changed = embed_sharded(str(table), tmp_path / "shards", OPTIONS, MULTI, Where("processes", 1))
    assert changed.found < changed.shards
    write_table(table, rows[1])


def test_archives_that_only_workers_list_are_all_of_one_kind(rows, tmp_path):
    """A table in which no image has several labels is read as one of several where that is said."""
    folder, lines = rows
    plain = [line for line in lines[:56] if line.count(";") == 0 and "?" not in line][:12]
    several = [line for line in lines[5:56] if line not in plain]
    for number, part in enumerate((several, plain)):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr("labels.csv", "\n".join(["path,labels,split", *part]))
            for line in part:
                archive.write(folder / line.split(",")[0], line.split(",")[0])
    pattern = str(tmp_path / "{0..1}.zip")
    with pytest.raises(OptionError, match=r"1\.zip has one class, others have several labels an image; read all with"):
        embed_sharded(pattern, tmp_path / "mixed", OPTIONS, ReadOptions(), Where("processes", 1))
    embed_sharded(pattern, tmp_path / "shards", OPTIONS, MULTI, Where("processes", 1))
    features = merge_parts([tmp_path / "shards"])
    assert len(features.rows) == len(plain) + len(several)
    held = {path.split("/")[-1]: text for path, text in zip(features.rows.paths, features.rows.labels, strict=True)}
    for line in plain:
        path, labels, _ = line.split(",")
        assert json.loads(held[path]) == [[labels] if labels else [], [], False]


def test_an_update_is_as_if_the_images_had_always_been_there(rows, kept, tmp_path):
    folder, lines = rows
    first, later = lines[:40] + lines[56:], lines[40:56]
    fit_multi_label(write_table(folder / "first.csv", first), OPTIONS, keep_features=True).save(tmp_path / "model")
    assert contents(tmp_path / "model") != contents(kept)
    done = update_model(tmp_path / "model", write_table(folder / "later.csv", later))
    assert done.added == 16
    assert contents(tmp_path / "model") == contents(kept)
    new = [line.split(",")[0] + ",cat;disc,train" for line in write_labelled(folder / "new", 6, seed=9)]
    done = update_model(tmp_path / "model", write_table(folder / "new" / "new.csv", new))
    assert "cat is a new label, of 6 images." in done.notes
    assert read_model(tmp_path / "model").classes == ("cat", "disc", "square", "stripes")


def test_validation_images_are_refused_beside_a_share_before_their_features_are_computed(tmp_path, monkeypatch):
    lines = write_labelled(tmp_path, 30)
    options = replace(OPTIONS, validation=0.3)
    fit_multi_label(write_table(tmp_path / "first.csv", lines[:20]), options, keep_features=True).save(tmp_path / "m")
    before = contents(tmp_path / "m")
    later = write_table(tmp_path / "later.csv", [lines[20], *(line.replace(",train", ",val") for line in lines[21:])])
    with monkeypatch.context() as patch:
        patch.setattr("headstart.classifier.update.embed", None)
        with pytest.raises(OptionError, match=r"has 9 validation images, and .*, --validation 0\.3; give the training"):
            update_model(tmp_path / "m", later)
    assert contents(tmp_path / "m") == before
    assert update_model(tmp_path / "m", later.split("train")).added == 1
    forget_images(tmp_path / "m", [lines[20].split(",")[0]])
    assert contents(tmp_path / "m") == before


def test_what_is_forgotten_was_never_seen(rows, kept, tmp_path):
    folder, lines = rows
    shutil.copytree(kept, tmp_path / "model")
    extra = [line.split(",")[0] + ",secret,train" for line in write_labelled(folder / "extra", 4, seed=11)]
    update_model(tmp_path / "model", write_table(folder / "extra" / "extra.csv", extra))
    assert "secret" in read_model(tmp_path / "model").classes
    done = forget_images(tmp_path / "model", [str(folder / "extra")])
    assert len(done.paths) == 4
    assert "secret has no training images left, and is no longer a label." in done.notes
    assert contents(tmp_path / "model") == contents(kept)
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file())
    names = [f"train_{i:03}.png" for i in (0, 2, 20)]
    forget_images(tmp_path / "model", names)
    left = [line for line in lines if line.split(",")[0] not in names]
    fit_multi_label(write_table(folder / "left.csv", left), OPTIONS, keep_features=True).save(tmp_path / "never")
    assert contents(tmp_path / "model") == contents(tmp_path / "never")
    with pytest.raises(OptionError, match="would have no label to tell apart; nothing was changed"):
        forget_images(tmp_path / "model", ["*.png"])


def test_a_label_that_every_image_left_has_is_said_to_be_one(kept, tmp_path):
    held = read_part(kept).rows
    items = [with_label_text(Item("", None, "train"), text) for text in held.labels]
    without = [h.hex() for h, item in zip(held.hashes, items, strict=True) if "disc" not in (item.labels or ())]
    done = forget_images(kept, without, tmp_path / "model")
    assert "disc" not in read_model(tmp_path / "model").classes
    assert "disc is no longer a label: no training image left is known to be without it." in done.notes
    assert not any("disc has no training images left" in note for note in done.notes)


def test_one_label_and_several_are_not_mixed(kept, photos, tmp_path):
    hs.fit_dataset(hs.open_dataset(photos), hs.FitOptions("headstart-s", compute=COMPUTE), keep_features=True).save(
        tmp_path / "classes"
    )
    parts = [read_part(tmp_path / "classes"), read_part(kept)]
    with pytest.raises(OptionError, match="a has one class an image and b has several labels an image, which are not"):
        merge(parts, ["a", "b"])
    with pytest.raises(DataError, match=r"several labels an image, .* one class; give a table of labels"):
        update_model(kept, hs.open_dataset(photos), tmp_path / "new")
    with pytest.raises(OptionError, match="leave --class-weight out"):
        fit_features(parts[1], replace(OPTIONS, class_weight="balanced"))
    with pytest.raises(OptionError, match="these images have one class"):
        fit_features(parts[0], OPTIONS)


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)


@given(st.sets(names, max_size=5), st.sets(names, max_size=4), st.booleans())
def test_labels_are_kept_as_a_text(present, unknown, rest):
    unknown -= present
    item = Item("a", None, "train", labels=tuple(sorted(present)), unknown=tuple(sorted(unknown)), is_rest_unknown=rest)
    assert with_label_text(Item("a", None, "train"), label_text(item)) == item
    assert label_text(Item("a", "cat", "train")) == "cat"
    assert label_text(Item("a", None, "train")) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "cat", "[]", "[[],[]]", "{}", "null", "[[],[],0]", "[[],[],null]", '[["b","a"],[],false]', "[" * 100_000),
        *('[["a","a"],[],false]', '[["a"],["a"],false]', '[[""],[],false]', "[[1],[],false]", "[[[]],[],false]"),
        *('[["a"], [], false]', '["ab",[],false]', '[["a"],"b",false]', '[["a"],[],true,1]', "[[],[],NaN]", "\ud800"),
    ],
)
def test_other_texts_are_no_labels(text):
    with pytest.raises(ValueError, match="are no labels of an image"):
        with_label_text(Item("a", None, "train"), text)


def rows_of(*cells):
    """Rows [n] of (content, labels as a text or None)."""
    hashes = np.zeros((len(cells), 32), np.uint8)
    hashes[:, 0] = [content for content, _ in cells]
    count = len(cells)
    return Rows(
        hashes,
        tuple(f"{i}.png" for i in range(count)),
        tuple(text for _, text in cells),
        ("train",) * count,
        (None,) * count,
        ("",) * count,
        np.zeros((count, 768), np.uint8),
        np.zeros((count, 4), np.float32),
        {"features": np.zeros((count, 1), np.int16)},
    )


LETTERS = ("a", "b", "c")
cell = st.lists(st.sampled_from(("yes", "no", "unknown")), min_size=3, max_size=3)


@given(st.lists(st.tuples(st.integers(0, 2), cell, st.booleans()), min_size=1, max_size=6))
def test_rows_of_one_image_know_together_what_any_of_them_knows(images):
    items = []
    for i, (_, states, rest) in enumerate(images):
        present = tuple(name for name, state in zip(LETTERS, states, strict=True) if state == "yes")
        unknown = tuple(name for name, state in zip(LETTERS, states, strict=True) if state == "unknown")
        items.append(Item(f"{i}", None, "train", labels=present, unknown=unknown, is_rest_unknown=rest))
    rows = rows_of(*((content, label_text(item)) for (content, *_), item in zip(images, items, strict=True)))
    kept, left_out = usable_rows(with_joint_labels(rows))
    joint = with_joint_labels(rows).labels
    values, known = label_matrix(items, (*LETTERS, "elsewhere"))
    for content in {content for content, *_ in images}:
        same = [i for i, (of, *_) in enumerate(images) if of == content]
        yes, no = (values & known)[same].any(axis=0), (~values & known)[same].any(axis=0)
        chosen = [i for i in kept if i in same]
        if (yes & no).any():
            assert chosen == []
            assert all(
                item.reason == "the same image with another label" for item in left_out if int(item.path[0]) in same
            )
        else:
            assert len(chosen) == 1
            item = with_label_text(Item("", None, "train"), joint[chosen[0]])
            found_values, found_known = label_matrix([item], (*LETTERS, "elsewhere"))
            assert (found_known[0] == (yes | no)).all()
            assert (found_values[0] == yes)[found_known[0]].all()


def test_a_row_for_tests_tells_a_fit_nothing():
    rows = rows_of((1, '[["a"],["b"],false]'), (1, '[["a"],[],false]'), (1, '[["b"],[],false]'))
    rows = replace(rows, splits=("train", "train", "test"))
    assert with_joint_labels(rows).labels == ('[["a"],[],false]', '[["a"],[],false]', '[["b"],[],false]')
    assert usable_rows(with_joint_labels(rows))[0] == [0]


def test_rows_of_the_same_image_are_one_in_a_fit(rows, kept):
    embedded = embedded_from(read_part(kept), OPTIONS)
    by_path = {item.path: item for item in embedded.dataset.items}
    table = {item.path: item for item in hs.open_dataset(rows[0] / "labels.csv", MULTI).items}
    for copy, original in (("same.png", "train_008.png"), ("other.png", "train_010.png")):
        (path,) = {copy, original} & {*by_path}
        assert set(by_path[path].labels) == set(table[original].labels)
        assert by_path[path].unknown == ()
    assert embedded.dataset.label_names == ("disc", "square", "stripes")
    assert embedded.dataset.classes == ()


def edited(folder, change):
    """Change ``features.json`` of a folder."""
    value = json.loads((folder / FILE).read_text("utf-8"))
    change(value)
    (folder / FILE).write_text(json.dumps(value), "utf-8")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda value: value.update(format=1), "does not fit to what it says of labels"),
        (lambda value: value.pop("multi_label"), "does not fit to what it says of labels"),
        (lambda value: value.update(format=3), "this version reads formats 1 and 2"),
        (lambda value: value.update(multi_label="yes"), "does not fit to what it says of labels"),
        (lambda value: value["unread"][0].update(label="disc"), "are no labels of an image"),
    ],
)
def test_folders_that_contradict_themselves_are_refused(kept, tmp_path, change, why):
    folder = Path(shutil.copytree(kept / "features", tmp_path / "features"))
    edited(folder, change)
    with pytest.raises(DataError, match=why):
        read_rows(folder)


def test_classes_are_not_read_as_several_labels(photos, tmp_path):
    embed_to_folder(hs.open_dataset(photos), tmp_path / "features", hs.FitOptions("headstart-s", compute=COMPUTE))
    edited(tmp_path / "features", lambda value: value.update(format=2, multi_label=True))
    with pytest.raises(DataError, match="are no labels of an image"):
        read_rows(tmp_path / "features")


def test_parts_whose_labels_are_too_many_together_are_refused_before_a_model_is_written(kept):
    """Each part is within the limit of 10,000 labels; a model of both could not be read."""
    whole = read_part(kept)
    some = whole.rows.select(range(30))
    parts = []
    for part in "ab":
        texts = [
            label_text(Item("", None, "train", labels=tuple(f"{part}{i}" for i in range(200 * row, 200 * (row + 1)))))
            for row in range(30)
        ]
        parts.append(FeatureRows(whole.source, replace(some, labels=tuple(texts), splits=("train",) * 30)))
        check_labels(whole.source, parts[-1].rows.labels)
    with pytest.raises(OptionError, match=r"cannot be fitted to: it has 12,0\d\d labels of 60 images; .* fewer parts"):
        fit_features(merge(parts, ["a", "b"]), OPTIONS)
