"""Rows of features: written and read back exactly, merged in any order alike, and refused where they are damaged."""

import base64
import hashlib
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones import InputOptions
from headstart.classifier.parts import merge_parts
from headstart.data.dataset import Skipped
from headstart.errors import DataError, OptionError
from headstart.features.rows import FeatureRows, Machine, Rows, Source, Unread, joined, merge, put_in_order
from headstart.features.rows_folder import FILE, Shard, parse_shard, read_rows, shard_bytes, write_rows
from headstart.features.runtime import RuntimeInfo
from headstart.images.preprocess import Preprocess

pytest.importorskip("pyarrow")
TAPS = {"stage4": (-3, 0, 5), "features": (-12, 1)}
CHANNELS = {"stage4": 3, "features": 2}
BACKBONE = {"id": "headstart-s", "sha256": "ab" * 32, "licence": "", "source": "", "precision": "fp32"}


def make_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    return Rows(
        rng.integers(0, 256, (count, 32), np.uint8),
        tuple(f"photos/caf\udce9 \u00e9/{i}.jpg" for i in range(count)),
        tuple(None if i % 5 == 4 else ("cat", "dog")[i % 2] for i in range(count)),
        tuple("validation" if i % 3 == 2 else "train" for i in range(count)),
        tuple(None if i % 2 else f"scene {i}" for i in range(count)),
        tuple("" if i % 2 else "deep/down" for i in range(count)),
        rng.integers(0, 256, (count, 768), np.uint8),
        rng.normal(size=(count, 4)).astype(np.float32),
        {tap: rng.integers(-32767, 32768, (count, channels)).astype(np.int16) for tap, channels in CHANNELS.items()},
    )


def make_source(**changes):
    golden = {tap: np.arange(8 * channels, dtype=np.float32).reshape(8, channels) for tap, channels in CHANNELS.items()}
    machine = Machine(RuntimeInfo("onnxruntime", "1.20", "fp32"), "x86_64 avx2", golden)
    source = Source(
        BACKBONE,
        TAPS,
        InputOptions(mean=(0.5, 0.5, 0.5), channels="BGR"),
        Preprocess(96, 128, sample_range=(0.0, 4095.0)),
        (machine,),
        "photos",
        "class/image",
        (("a", "b"),),
        ("A note.",),
        (Skipped("notes.txt", "no image"),),
        (Unread("bad.jpg", "cut off", "cat", "train", "cd" * 32),),
    )
    return replace(source, **changes)


def assert_equal(first, second):
    for name in ("paths", "labels", "splits", "groups", "folders"):
        assert getattr(first, name) == getattr(second, name), name
    for name in ("content_hashes", "tiny_images", "image_stats"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert [*first.values] == [*second.values]
    for tap, value in first.values.items():
        assert value.dtype == second.values[tap].dtype
        np.testing.assert_array_equal(value, second.values[tap])


def test_rows_come_back_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.features.rows_folder.SHARD_ROWS", 7)
    features = FeatureRows(make_source(), make_rows(20))
    size = write_rows(tmp_path / "f", features)
    assert size == sum(path.stat().st_size for path in (tmp_path / "f").iterdir())
    assert len([*(tmp_path / "f").glob("*.parquet")]) == 3
    again = read_rows(tmp_path / "f")
    assert_equal(again.rows, features.rows)
    assert again.source.to_dict() == features.source.to_dict()
    assert again.source.preprocess == features.source.preprocess
    assert again.source.input_options == features.source.input_options


def test_unreadable_images_are_part_of_a_shard():
    unread = (Unread("x\udce9.jpg", r"begins with b'\xff'", "cat", "train"),)
    rows = make_rows(3)
    again = parse_shard(shard_bytes(Shard(rows, unread, {"{count} images": 2})), CHANNELS, "shard")
    assert_equal(again.rows, rows)
    assert (again.unread, again.remarks) == (unread, {"{count} images": 2})
    empty = parse_shard(shard_bytes(Shard(rows.select([]), unread)), CHANNELS, "shard")
    assert (len(empty.rows), empty.unread) == (0, unread)
    assert empty.rows.values["features"].shape == (0, 2)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_cut_and_any_order_of_parts_give_the_same_rows(data):
    rows = make_rows(12)
    whole = merge([FeatureRows(make_source(), rows)], ["all"])
    cut = data.draw(st.lists(st.integers(0, 3), min_size=12, max_size=12))
    twice = data.draw(st.lists(st.integers(0, 11), max_size=4))
    index = [[i for i in range(12) if cut[i] == part] for part in range(4)]
    index[0] = index[0] + twice
    parts = [FeatureRows(make_source(), rows.select(data.draw(st.permutations(part)))) for part in index if part]
    merged = merge(data.draw(st.permutations(parts)), ["part"] * len(parts))
    assert_equal(merged.rows, whole.rows)
    assert merged.source.to_dict() == whole.source.to_dict()
    assert merged.rows.hashes == sorted(rows.hashes)  # SHA-256 compare as bytes


def test_rows_that_are_put_in_order_in_place_are_those_of_a_copy(monkeypatch):
    monkeypatch.setattr("headstart.features.rows.ORDERED", 2)
    rows = make_rows(30)
    twice = joined([rows, rows.select([3, 20, 4])], 33)
    ordered = twice.in_order()
    assert_equal(put_in_order(twice), ordered)
    assert len(ordered) == 30
    assert put_in_order(ordered) is ordered
    assert ordered.select(range(30)) is ordered


def test_parts_are_in_memory_once(tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.features.rows_folder.SHARD_ROWS", 50)
    width = 4000
    golden = np.zeros((8, width), np.float32)
    machine = Machine(RuntimeInfo("onnxruntime", "1.20", "fp32"), "x86_64 avx2", {"features": golden})
    source = make_source(taps={"features": (0,) * width}, machines=(machine,))
    values = np.random.default_rng(0).integers(-99, 99, (1000, width)).astype(np.int16)
    rows = replace(make_rows(1000), values={"features": values})
    for i in range(4):
        write_rows(tmp_path / f"{i}", FeatureRows(source, rows.select(range(250 * i, 250 * i + 250))))
    folders = [tmp_path / f"{i}" for i in range(4)]
    merge_parts(folders)  # imports
    tracemalloc.start()
    merged = merge_parts(folders).rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = values.nbytes + 1000 * (32 + 768 + 16)
    assert size < peak < 1.4 * size
    assert_equal(merged, rows.in_order())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {**BACKBONE, "sha256": "00" * 32}}, "compute them with one backbone"),
        ({"backbone": {**BACKBONE, "precision": "int8"}}, "headstart-s in int8"),
        ({"preprocess": Preprocess(96, 96)}, r"not prepared alike \(sample_range .*width 128 and 96\)"),
        ({"taps": {"features": (-12, 1)}}, "the same taps"),
        ({"taps": {**TAPS, "features": (-12, 2)}}, "rounded to other steps"),
    ],
)
def test_parts_that_were_not_computed_alike_are_refused(changes, message):
    parts = [FeatureRows(make_source(), make_rows(2)), FeatureRows(make_source(**changes), make_rows(2))]
    with pytest.raises(OptionError, match=message):
        merge(parts, ["a", "b"], mixed=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtime": RuntimeInfo("openvino", "2026.1", "bf16")}, "openvino 2026.1 bf16 on x86_64 avx2"),
        ({"instruction_set": "x86_64 avx512f"}, "fp32 on x86_64 avx512f"),
        ({"golden": {"stage4": np.ones((8, 3), np.float32), "features": np.ones((8, 2), np.float32)}}, "all by onnx"),
    ],
)
def test_a_mix_of_machines_is_named_and_needs_leave(changes, message):
    other = make_source(machines=(replace(make_source().machines[0], **changes),))
    rows = make_rows(4)
    other_rows = replace(rows, values={tap: value ^ 1 for tap, value in rows.values.items()})
    parts = [FeatureRows(make_source(), rows), FeatureRows(other, other_rows)]
    with pytest.raises(OptionError, match=message):
        merge(parts, ["a", "b"])
    both = [merge(order, ["a", "b"], mixed=True) for order in (parts, parts[::-1])]
    assert_equal(both[0].rows, both[1].rows)
    assert len(both[0].source.machines) == 2
    assert both[0].source.to_dict() == both[1].source.to_dict()


def rewritten(folder, change):
    """Change features.json."""
    value = json.loads((folder / FILE).read_bytes())
    change(value)
    (folder / FILE).write_text(json.dumps(value))


def with_shard(folder, data, rows):
    """Put a shard into the place of the only one."""
    shard = next(folder.glob("*.parquet"))
    shard.write_bytes(data)
    changed = {"rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewritten(folder, lambda value: (value["shards"][0].update(changed), value.update(images=rows)))


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path / "f", FeatureRows(make_source(), make_rows(6)))
    return tmp_path / "f"


@pytest.mark.parametrize("images", [1, 7, 9, 16])
def test_golden_features_are_of_eight_images(folder, images):
    """Of one they would count for all, of others no golden sample can be made."""
    golden = {
        tap: base64.b64encode(np.ones((images, channels), "<f4").tobytes()).decode()
        for tap, channels in CHANNELS.items()
    }
    rewritten(folder, lambda value: value["machines"][0].update(golden=golden))
    with pytest.raises(DataError, match=r"golden features of \w+ are not 8 vectors of \d numbers"):
        read_rows(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(format=2),
        lambda value: value.update(images=7),
        lambda value: value["shards"][0].update(name="../../etc.parquet"),
        lambda value: value["shards"][0].update(rows=10**6),
        lambda value: value["shards"][0].update(rows=-1),
        lambda value: value["shards"][0].update(sha256="00"),
        lambda value: value["shards"][0].pop("sha256"),
        lambda value: value["shards"].append(value["shards"][0]),
        lambda value: value["taps"].update(stage4="1 2 3 4"),
        lambda value: value["taps"].update(stage4="1 2 300"),
        lambda value: value["machines"].clear(),
        lambda value: value["machines"][0]["golden"].update(features="AAAA"),
        lambda value: value["preprocess"].update(height=10**9),
        lambda value: value["input_options"].update(evil=1),
        lambda value: value.pop("taps"),
        lambda value: value.update(notes=[1]),
        lambda value: value.update(uri="photos\ud800"),
        lambda value: value.update(notes=["\udc7f"]),
        lambda value: value["unread"][0].update(content_hash="no hash"),
        lambda value: value["unread"][0].update(split="other"),
    ],
)
def test_a_damaged_listing_is_refused(folder, change):
    rewritten(folder, change)
    with pytest.raises((DataError, OptionError)):
        read_rows(folder)


@pytest.mark.parametrize("rows", [0, 5, 7])
def test_a_shard_of_another_number_of_rows_than_the_listing_says_is_refused(folder, rows):
    rewritten(folder, lambda value: (value["shards"][0].update(rows=rows), value.update(images=rows)))
    for read in (read_rows, lambda folder: merge_parts([folder])):
        with pytest.raises(DataError, match=f"has 6 rows, not the {rows} that features.json says"):
            read(folder)


def test_a_link_out_of_the_folder_and_a_cut_off_shard_are_refused(folder, tmp_path):
    shard = next(folder.glob("*.parquet"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(DataError, match=r"bytes, not the"):
        read_rows(folder)
    shard.unlink()
    (tmp_path / "elsewhere").write_bytes(data)
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="link out of the folder"):
        read_rows(folder)


def test_an_unfinished_folder_says_so(folder):
    (folder / FILE).unlink()
    with pytest.raises(DataError, match="run the same headstart embed again"):
        read_rows(folder)


@pytest.mark.parametrize("kind", ["nan", "split", "label", "long", "null", "columns", "claims"])
def test_a_shard_with_impossible_content_is_refused(folder, kind):
    import pyarrow
    import pyarrow.parquet

    rows = make_rows(6)
    if kind == "nan":
        rows = replace(rows, image_stats=np.full((6, 4), np.nan, np.float32))
    elif kind == "split":
        rows = replace(rows, splits=("other",) * 6)
    elif kind == "label":
        rows = replace(rows, labels=("",) * 6)
    elif kind == "long":
        rows = replace(rows, paths=("x" * 10_000,) * 6)
    data = shard_bytes(Shard(rows))
    if kind in ("null", "columns", "claims"):
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        names = table.column_names
        if kind == "null":
            place = names.index("tiny_image")
            table = table.set_column(place, table.field(place), pyarrow.nulls(6, table.field(place).type))
        elif kind == "columns":
            table = table.select(names[::-1])
        else:  # a small file of many equal rows
            table = pyarrow.concat_tables([table.slice(0, 1)] * 60_000).combine_chunks()
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
    with_shard(folder, data, 60_000 if kind == "claims" else 6)
    with pytest.raises(DataError):
        read_rows(folder)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 255))
def test_whatever_byte_is_changed_the_answer_is_rows_or_an_error(place, byte):
    data = bytearray(shard_bytes(Shard(make_rows(3))))
    data[place % len(data)] = byte
    try:
        rows = parse_shard(bytes(data), CHANNELS, "shard").rows
    except DataError:
        return
    assert len(rows) == 3
    assert rows.values["features"].shape == (3, 2)
