"""``--to torch``: PyTorch answers as the model does, and a .pt2 file that could do more is not loaded."""

import io
import json
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import onnxruntime
import pytest
from helpers.frameworks import needs
from onnx import TensorProto, helper, numpy_helper

from headstart.errors import MissingExtraError, ModelError, OptionError
from headstart.export import ExportOptions, export_model, verify_export
from headstart.export.torch_archive import OPERATIONS, checked_archive
from headstart.model.folder import read_model

N = helper.make_node
LEAF = {"type": None, "context": None, "children_spec": []}
SYMBOL = "Symbol('s81', positive=True, integer=True)"
TENSOR = {"dtype": 7, "sizes": [{"as_int": 3}], "strides": [{"as_int": 1}], "device": {"type": "cpu", "index": None}}


def program():
    """The parts of a program in which something could be planted, as torch.export writes them."""
    node = {
        "target": "torch.ops.aten.relu.default",
        "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "pixels"}}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "relu"}}],
        "metadata": {},
    }
    sizes = [{"as_expr": {"expr_str": SYMBOL, "hint": {"as_int": 2}}}]
    signature = {"in_spec": json.dumps([1, LEAF]), "out_spec": json.dumps([1, LEAF]), "forward_arg_names": ["pixels"]}
    return {
        "graph_module": {"graph": {"nodes": [node], "tensor_values": {"pixels": {**TENSOR, "sizes": sizes}}}},
        "module_call_graph": [{"fqn": "", "signature": signature}],
        "guards_code": [],
    }


def archive(model=None, weights=None, **more):
    """An archive with these parts and members."""
    about = {"path_name": "weight_0", "is_param": False, "use_pickle": False, "tensor_meta": TENSOR}
    members = {
        "models/model.json": json.dumps(model or program()),
        "data/weights/model_weights_config.json": json.dumps({"config": {"weight_0": {**about, **(weights or {})}}}),
        "data/weights/weight_0": b"\0" * 12,
        "data/constants/model_constants_config.json": '{"config": {}}',
        "data/sample_inputs/model.pt": b"",
        "extra/labels.txt": "a\nb\n",
        "archive_version": "0",
        **more,
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in members.items():
            file.writestr(f"archive/{name}", data)
    return stream.getvalue()


def changed(*path_and_value):
    """The program with one value changed."""
    *path, key, value = path_and_value
    model = part = program()
    for step in path:
        part = part[step]
    part[key] = value
    return model


def test_what_is_checked_is_written_anew():
    content, extra = checked_archive(archive())
    assert extra == {"labels.txt": "a\nb\n"}
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert json.loads(file.read("model/models/model.json")) == program()
        assert file.read("model/data/weights/weight_0") == b"\0" * 12


@pytest.mark.parametrize("expression", [f"Mul(Integer(3), {SYMBOL})", f"Add(Integer(-1), Mul(Integer(3), {SYMBOL}))"])
def test_sizes_may_be_sums_and_products(expression):
    value = {"expr_str": expression, "hint": {"as_int": 6}}
    checked_archive(archive(changed("graph_module", "graph", "tensor_values", "pixels", "sizes", 0, "as_expr", value)))


NODE = ("graph_module", "graph", "nodes", 0)
SIZE = ("graph_module", "graph", "tensor_values", "pixels", "sizes", 0, "as_expr")
CALLED = ("module_call_graph", 0, "signature")
STRUCTURE = json.dumps([1, {"type": "collections.defaultdict", "context": "[]", "children_spec": []}])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(**{"data/sample_inputs/model.pt": pickle.dumps({})}), "model.pt is compressed, or has"),
        (archive(weights={"use_pickle": True}), "its weights are pickled"),
        (archive(weights={"path_name": "../../models/model.json"}), "damaged: it has a text"),
        (archive(weights={"tensor_meta": {**TENSOR, "sizes": [{"as_int": 10**12}]}}), "larger than what the archive"),
        (archive(**{"data/constants/opaque_obj_0": b"x"}), "it has a member 'data/constants/opaque_obj_0'"),
        (archive(**{"data/constants/model.pt": b"x"}), "it has a member 'data/constants/model.pt'"),
        (archive(**{"data/aotinductor/model/a.so": b"x"}), "it has a member 'data/aotinductor/model/a.so'"),
        (archive(**{"data/constants/model_constants_config.json": '{"config": {"a": {}}}'}), "it has constants"),
        (archive(changed(*NODE, "target", "torch.hub.load_state_dict_from_url")), "it has the operation"),
        (archive(changed(*NODE, "target", "_operator.attrgetter")), "it has the operation"),
        (archive(changed(*NODE, "metadata", {"source_fn_stack": "a,torch.hub.load"})), "it has metadata"),
        (archive(changed(*NODE, "inputs", [{"name": "x", "arg": {"as_graph": {}}}])), "it has a key 'as_graph'"),
        (archive(changed(*NODE, "inputs", [{"name": "x):\n import os\n#", "arg": {}}])), "it has a text"),
        (archive(changed(*SIZE, "expr_str", "__import__('os').system('true')")), "it has a text"),
        (archive(changed(*SIZE, "expr_str", f"Mul({SYMBOL}, exec('1'))")), "it has a text"),
        (archive(changed(*SIZE, "expr_str", "Mul(" * 300)), "it has a text"),
        (archive(changed(*CALLED, "out_spec", STRUCTURE)), "neither tuples nor dictionaries"),
        (archive(changed("guards_code", ["__import__('os')"])), "it has guards_code"),
        (b"PK" + b"\0" * 100, "damaged"),
    ],
)
def test_what_could_do_more_than_compute_is_refused(content, said):
    with pytest.raises(ModelError, match=said):
        checked_archive(content)


def test_two_members_of_one_name_are_refused():
    stream = io.BytesIO(archive())
    with zipfile.ZipFile(stream, "a") as file:
        file.writestr("other/models/model.json", "{}")
    with pytest.raises(ModelError, match="two of one name"):
        checked_archive(stream.getvalue())


def test_without_pytorch_nothing_is_written(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.export.to_torch.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"PyTorch is not installed; run: .*headstart\[torch\]"):
        export_model(read_model(model_folder), "torch", tmp_path / "export")
    assert not (tmp_path / "export").exists()


# What follows needs PyTorch.


@pytest.fixture(scope="module")
def folder(model_folder, tmp_path_factory):
    """An export with PyTorch. Read only."""
    needs("torch")
    folder = tmp_path_factory.mktemp("torch") / "export"
    export_model(read_model(model_folder), "torch", folder)
    return folder


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
def test_an_export_is_proven_and_verified(folder):
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    assert parity["runtime"]["name"] == "torch"
    assert {part["of"] for part in parity["proof"]["comparisons"]} >= {"golden images", "image files"}
    assert all(part["changed"] == 0 and part["score"] < 1e-3 for part in parity["proof"]["comparisons"])
    assert verify_export(folder).problems == ()


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
def test_the_program_of_the_readme_answers_and_the_file_names_no_path(folder, model_folder, photos):
    from headstart import Compute, Predictor

    path = next((photos / "validation").rglob("*.jpg"))
    program = (folder / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    program = program.replace('"new.jpg"', repr(str(path)))
    completed = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    expected = Predictor.load(model_folder, Compute("onnxruntime")).predict([str(path)])
    name, probability, distance = completed.stdout.split()
    assert name == expected.classes[expected.predicted[0]]
    assert float(probability) == pytest.approx(expected.confidence[0], abs=1e-4)
    assert float(distance) == pytest.approx(expected.ood_scores[0], abs=1e-4)
    with zipfile.ZipFile(folder / "model.pt2") as file:
        assert b"torch_module" not in b"".join(file.read(name) for name in file.namelist())


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("labels", ["disc\nstripes", "stripes\ndisc\n", None])
def test_other_labels_in_the_file_are_a_problem(folder, tmp_path, labels):
    copy = shutil.copytree(folder, tmp_path / "export")
    with zipfile.ZipFile(folder / "model.pt2") as old, zipfile.ZipFile(copy / "model.pt2", "w") as new:
        for name in old.namelist():
            if not name.endswith("extra/labels.txt"):
                new.writestr(name, old.read(name))
            elif labels is not None:
                new.writestr(name, labels)
    problems = verify_export(copy).problems
    assert "labels.txt in model.pt2 names other classes, or in another order" in problems
    assert len(problems) == 2  # and the hash of the file


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
def test_a_program_of_a_fixed_batch_answers_any_number_of_images(folder):
    """It refuses another batch; the images that fill the last one are no answers."""
    import torch

    from headstart.export.graphs import runner
    from headstart.export.to_torch import _graph

    class Means(torch.nn.Module):
        def forward(self, pixels):
            assert len(pixels) == 4
            means = pixels.float().mean((1, 2, 3)) / 256
            return {"distance": means.reshape(-1, 1) * 2, "probabilities": torch.stack([means, 1 - means], 1)}

    pixels = np.arange(1, 8, dtype=np.uint8).reshape(7, 1, 1, 1).repeat(3, axis=3)
    pixels.flags.writeable = False
    answers = runner(_graph(Means()), 4)(pixels)
    expected = np.arange(1, 8) / 256
    assert answers.probabilities.tolist() == np.stack([expected, 1 - expected], 1).tolist()
    assert answers.ood_scores.tolist() == (2 * expected).tolist()


class Planted:
    """As it is unpickled it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", ["sample inputs", "expression"])
def test_an_archive_that_runs_when_pytorch_loads_it_is_refused(folder, tmp_path, where):
    """The first load, in a process of its own, shows that what is planted does run."""
    import torch

    ran = tmp_path / "ran"
    stream = io.BytesIO()
    torch.save((Planted(str(ran)),), stream)
    copy = shutil.copytree(folder, tmp_path / "export")
    with zipfile.ZipFile(folder / "model.pt2") as old, zipfile.ZipFile(copy / "model.pt2", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if where == "sample inputs" and name.endswith("model.pt"):
                data = stream.getvalue()
            if where == "expression" and name.endswith("model.json"):
                text = data.decode()
                symbol = text.split('"expr_str": "')[1].split('"')[0]
                data = text.replace(symbol, f"[{symbol}, open('{ran}', 'w')][0]", 1).encode()
            new.writestr(name, data)
    load = f"import torch; torch.export.load({str(copy / 'model.pt2')!r})"
    subprocess.run([sys.executable, "-c", load], capture_output=True, check=False)
    assert ran.exists()
    ran.unlink()
    with pytest.raises(ModelError, match="damaged"):
        verify_export(copy)
    assert not ran.exists()


def _graph(nodes, weights, shape=(2, 8, 8, 3)):
    graph = helper.make_graph(
        [N("Transpose", ["pixels"], ["t"], perm=[0, 3, 1, 2]), N("Cast", ["t"], ["x"], to=TensorProto.FLOAT), *nodes],
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", *shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _f(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _i(*numbers):
    return np.array(numbers, np.int64)


KINDS = {
    "padding of one side": ([N("Conv", ["x", "w"], ["y"], pads=[0, 1, 2, 0], strides=[2, 1])], {"w": _f(4, 3, 3, 3)}),
    "groups, dilation": (
        [N("Conv", ["x", "w", "b"], ["y"], group=3, dilations=[2, 2])],
        {"w": _f(3, 1, 3, 3), "b": _f(3)},
    ),
    "max pool": ([N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}),
    "average pool": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0])],
        {},
    ),
    "average pool, pads counted": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
    ),
    "average pool, rounded up": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {},
    ),
    "batch norm": (
        [N("BatchNormalization", ["x", "w", "b", "m", "v"], ["y"], epsilon=0.1)],
        {"w": _f(3), "b": _f(3) + 1, "m": _f(3) * 50, "v": np.abs(_f(3)) * 900},
    ),
    "one limit": ([N("Clip", ["x", "", "l"], ["y"])], {"l": np.float32(6)}),
    "gelu": ([N("Mul", ["x", "s"], ["m"]), N("Gelu", ["m"], ["y"], approximate="tanh")], {"s": np.float32(0.01)}),
    "hard sigmoid": ([N("Mul", ["x", "s"], ["m"]), N("HardSigmoid", ["m"], ["y"])], {"s": np.float32(0.05)}),
    "dense": (
        [
            N("GlobalAveragePool", ["x"], ["p"]),
            N("Flatten", ["p"], ["f"]),
            N("Gemm", ["f", "w", "b"], ["y"], transB=1, alpha=0.5),
        ],
        {"w": _f(4, 3), "b": _f(4)},
    ),
    "dense without bias": (
        [N("Flatten", ["x"], ["f"], axis=-3), N("Gemm", ["f", "w", ""], ["y"], alpha=0.01)],
        {"w": _f(192, 3)},
    ),
    "layer norm": ([N("LayerNormalization", ["x", "w"], ["y"], axis=-1, epsilon=1e-3)], {"w": _f(8)}),
    "slices": (
        [N("Slice", ["x", "a", "e", "d", "s"], ["y"])],
        {"a": _i(1, -3), "e": _i(8, 99), "d": _i(2, 3), "s": _i(2, 1)},
    ),
    "split": ([N("Split", ["x", "n"], ["p", "q"], axis=3), N("Concat", ["q", "p"], ["y"], axis=-1)], {"n": _i(3, 5)}),
    "gather": ([N("Gather", ["x", "i"], ["y"], axis=1)], {"i": _i(-1, 0)}),
    "one place": ([N("Gather", ["x", "i"], ["y"], axis=3)], {"i": np.int64(2)}),
    "reshape": ([N("Reshape", ["x", "n"], ["y"])], {"n": _i(0, 3, -1)}),
    "axes": (
        [
            N("Unsqueeze", ["x", "a"], ["u"]),
            N("Squeeze", ["u", "a"], ["s"]),
            N("ReduceMean", ["s", "b"], ["y"], keepdims=0),
        ],
        {"a": _i(-1, 1), "b": _i(-1)},
    ),
    "shape": (
        [
            *(N("Shape", ["x"], ["s"]), N("Slice", ["s", "z", "o"], ["n"]), N("Concat", ["n", "m"], ["r"], axis=0)),
            *(N("Reshape", ["x", "r"], ["v"]), N("Concat", ["n", "e"], ["g"], axis=0), N("Expand", ["w", "g"], ["q"])),
            N("Concat", ["v", "q"], ["y"], axis=1),
        ],
        {"z": _i(0), "o": _i(1), "m": _i(3, 64), "e": _i(1, 64), "w": _f(1, 1, 64)},
    ),
}


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_node_is_translated_and_any_batch_is_taken(kind):
    needs("torch")
    import torch

    from headstart.export.torch_module import OnnxModule

    model = _graph(*KINDS[kind])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    sizes = {"pixels": {0: torch.export.Dim("batch", min=1, max=64)}}
    example = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    program = torch.export.export(OnnxModule(model).eval(), (example,), dynamic_shapes=sizes)
    called = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    assert {f"torch.ops.{operation}" for operation in called} <= OPERATIONS  # others verify would refuse
    network = program.module()
    for batch in (1, 2, 5):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, 8, 8, 3), np.uint8)
        (expected,) = session.run(["y"], {"pixels": pixels})
        np.testing.assert_allclose(network(torch.from_numpy(pixels))["y"].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
def test_an_operator_without_translation_is_named():
    needs("torch")
    from headstart.export.torch_module import OnnxModule

    with pytest.raises(OptionError, match="no translation of the operator LRN; export --to onnx"):
        OnnxModule(_graph([N("LRN", ["x"], ["y"], size=3)], {}))


UNTRANSLATED = {
    "cast of a shape": (
        [N("Shape", ["x"], ["s"]), N("Cast", ["s"], ["c"], to=TensorProto.INT64), N("Reshape", ["x", "c"], ["y"])],
        "cannot translate this graph",
    ),
    "product of a shape": (
        [N("Shape", ["x"], ["s"]), N("Mul", ["s", "one"], ["c"]), N("Reshape", ["x", "c"], ["y"])],
        "cannot translate this graph",
    ),
    "constant numbers": (
        [N("Constant", [], ["n"], value_ints=[0, -1]), N("Reshape", ["x", "n"], ["y"])],
        "cannot translate this graph",
    ),
    "flatten": ([N("Flatten", ["x"], ["y"], axis=2)], "no translation of a Flatten at axis 2"),
    "average pool": (
        [N("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], pads=[0, 0, 1, 1])],
        "no translation of such an AveragePool",
    ),
}


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNTRANSLATED)
def test_a_graph_that_cannot_be_translated_is_an_error_of_one_line(kind, folder, tmp_path):
    from headstart.export.about import read_parity
    from headstart.export.to_torch import write

    nodes, said = UNTRANSLATED[kind]
    graph = _graph(nodes, {"one": _i(1)}).SerializeToString()
    with pytest.raises(OptionError, match=rf"^--to torch (has )?{said}[^\n]*; export --to onnx\.$"):
        write(graph, read_parity(folder)[0], None, ExportOptions(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
def test_a_program_that_takes_too_much_memory_is_refused(folder):
    needs("torch")
    import torch

    from headstart.export.about import read_parity
    from headstart.export.to_torch import _check_size

    class Large(torch.nn.Module):
        def forward(self, pixels):
            return pixels.unsqueeze(0).expand(400, -1, -1, -1, -1).float() * 2

    with pytest.raises(ModelError, match=r"more than 1\.75 GiB of memory at a time; refused"):
        _check_size(Large(), read_parity(folder)[0])  # 8 images, 400 times, in fp32: 1.8 GiB twice


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pool", ["max_pool2d", "avg_pool2d"])
def test_the_work_of_pools_counts(folder, monkeypatch, pool):
    """An output of 8 images, 3 channels and 5 by 7 places, of windows of 4 by 6."""
    import torch

    from headstart.export import to_torch
    from headstart.export.about import read_parity

    class Pools(torch.nn.Module):
        def forward(self, pixels):
            return getattr(torch.nn.functional, pool)(pixels.permute(0, 3, 1, 2).float()[..., :8, :12], [4, 6], 1)

    about = read_parity(folder)[0]
    work = 3 * 5 * 7 * 4 * 6  # multiply-adds for an image
    monkeypatch.setattr(to_torch, "MAX_MULTIPLY_ADDS", work)
    to_torch._check_size(Pools(), about)
    monkeypatch.setattr(to_torch, "MAX_MULTIPLY_ADDS", work - 1)
    with pytest.raises(ModelError, match="multiply-adds for an image; refused"):
        to_torch._check_size(Pools(), about)


def test_fewer_bits_are_refused(model_folder, tmp_path):
    with pytest.raises(OptionError, match="--to torch has no int8; choose fp32"):
        export_model(read_model(model_folder), "torch", tmp_path / "export", ExportOptions("int8"))
