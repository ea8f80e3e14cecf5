"""``--to torch``: a ``.pt2`` file of ``torch.export``, for PyTorch without Headstart, AOTInductor and ExecuTorch."""

from __future__ import annotations

import io
import weakref
from dataclasses import replace
from importlib import metadata, util
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from headstart.backbones.onnx.limits import BATCH, MAX_LIVE_BYTES, MAX_MULTIPLY_ADDS
from headstart.errors import HeadstartError, ModelError, OptionError, missing_extra, one_line, untrusted
from headstart.export.about import MAX_FILE_BYTES, About
from headstart.export.formats import ABOUT_LINES, ExportOptions, Format, Target, snippet_target, write_snippet
from headstart.export.graphs import metadata_of, runner
from headstart.export.labels import labels_text
from headstart.export.torch_archive import checked_archive
from headstart.features.runtime import Graph, Images, RuntimeInfo
from headstart.model.metadata import KEY
from headstart.model.model import Model

if TYPE_CHECKING:
    import torch

FILE = "model.pt2"
LABELS, ABOUT = "labels.txt", "headstart.json"  # extra files in the archive


def write(graph: bytes, about: About, model: Model, options: ExportOptions, folder: Path) -> None:  # noqa: ARG001
    """Write ``model.pt2`` and ``preprocess.py``. Raises MissingExtraError, OptionError, ModelError."""
    _check_installed()
    import torch

    from headstart.export.torch_module import OnnxModule

    batch = about.batch or 2  # 1 would be taken for a size that is always 1
    example = torch.zeros(batch, about.preprocess.height, about.preprocess.width, 3, dtype=torch.uint8)
    sizes = None if about.batch else {"pixels": {0: torch.export.Dim("batch", min=1, max=4096)}}
    try:
        module = OnnxModule(onnx.load_model_from_string(graph)).eval()
        program: Any = torch.export.export(module, (example,), dynamic_shapes=sizes)
    except HeadstartError:
        raise
    except Exception as error:  # a form of a node that the translations do not foresee ends in any exception
        raise OptionError(
            f"--to torch cannot translate this graph: {one_line(error, 200).rstrip('.')}; export --to onnx."
        ) from None
    for node in program.graph.nodes:  # which function of which file of this machine it comes from
        for key in set(node.meta) - {"val"}:
            del node.meta[key]
    program.example_inputs = None  # they would be a pickle
    texts = metadata_of(model)
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={LABELS: labels_text(about), ABOUT: texts[KEY]})
    (folder / FILE).write_bytes(stream.getvalue())
    write_snippet(about, folder)


def load(folder: Path, about: About) -> Target:
    """Load the export in PyTorch, after a check that it only computes. Raises MissingExtraError, ModelError."""
    _check_installed()
    path = folder / FILE
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(f"{path} is missing or too large; export the model again.")
    archive, extra = checked_archive(path.read_bytes())
    import torch

    with untrusted(str(path), ModelError):
        network = torch.export.load(io.BytesIO(archive)).module()
        _check_size(network, about)
    target = snippet_target(folder, about, "torch", metadata.version("torch"), runner(_graph(network), about.batch))
    if extra.get(LABELS) == labels_text(about):
        return target
    problem = f"{LABELS} in {FILE} names other classes, or in another order"
    return replace(target, problems=(*target.problems, problem))


def _check_installed() -> None:
    if util.find_spec("torch") is None:
        raise missing_extra("PyTorch is not installed", "torch")


def _check_size(network: torch.nn.Module, about: About) -> None:
    """Raise ModelError for a network that takes too much memory or work, as a run without numbers shows."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    batch = about.batch or BATCH

    class Memory(TorchDispatchMode):  # type: ignore[misc]
        now = 0

        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    size = tensor.numel() * tensor.element_size()
                    self.now += size
                    weakref.finalize(tensor, self.less, size)
            if self.now > MAX_LIVE_BYTES:
                raise ModelError(f"{FILE} needs more than {MAX_LIVE_BYTES / 2**30:g} GiB of memory at a time; refused.")
            return result

        def less(self, size: int) -> None:
            self.now -= size

    pools = {torch.ops.aten.max_pool2d_with_indices: _pool_work, torch.ops.aten.avg_pool2d: _pool_work}
    counter = FlopCounterMode(display=False, custom_mapping=pools)
    with FakeTensorMode(allow_non_fake_inputs=True), counter, Memory():
        network(torch.zeros(batch, about.preprocess.height, about.preprocess.width, 3, dtype=torch.uint8))
    if counter.get_total_flops() / 2 / batch > MAX_MULTIPLY_ADDS:
        raise ModelError(f"{FILE} takes more than {MAX_MULTIPLY_ADDS:.0e} multiply-adds for an image; refused.")


def _pool_work(_: Any, kernel: Any, *__: Any, out_shape: Any, **___: Any) -> int:
    """Return the work of a pool, for which PyTorch counts none: that of a convolution of each channel by itself.

    ``out_shape`` is the shape of its output, or, of a max pool, the shapes of its outputs.
    """
    shape = out_shape if isinstance(out_shape[0], int) else out_shape[0]
    return int(2 * prod(shape) * prod(kernel if len(kernel) == 2 else [*kernel, *kernel]))


def _graph(network: torch.nn.Module) -> Graph:
    import torch

    outputs = ("probabilities", "distance")

    def call(images: Images) -> list[NDArray[np.float32]]:
        with torch.inference_mode():
            found = network(torch.from_numpy(images.copy()))  # a copy, since it warns of an array that is read only
        return [found[name].numpy() for name in outputs]

    return Graph(RuntimeInfo("torch", metadata.version("torch"), "fp32"), outputs, 1, call)


def use(about: About) -> str:
    """Return the program of the README."""
    best = "probabilities.argmax()" if about.rule is None else 'result["decision"][0]'
    result = [f"best = int({best})", 'print(about["classes"][best], float(probabilities[best]), distance)']
    if about.is_multi_label:
        result = ["probabilities = probabilities.tolist()", *ABOUT_LINES, "print(distance)"]
    return "\n".join(
        [
            "import json, torch",
            "from preprocess import preprocess",
            "",
            f'texts = {{"{ABOUT}": ""}}',
            f'network = torch.export.load("{FILE}", extra_files=texts).module()  # runs what is in the file: trust it',
            f'about = json.loads(texts["{ABOUT}"])',
            f'result = network(torch.from_numpy(preprocess("new.jpg")).repeat({about.batch or 1}, 1, 1, 1))',
            'probabilities, distance = result["probabilities"][0], float(result["distance"][0])',
            *result,
        ]
    )


TORCH = Format("torch", ("fp32",), False, True, write, load, use, "pip install torch", language="python")
