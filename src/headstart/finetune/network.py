"""A backbone and a head as one trainable network that starts as the frozen model, and back to an ONNX backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones import Backbone, InputOptions
from headstart.backbones.onnx.runnable import open_session
from headstart.backbones.providers.framework import TorchModel, parse_request, to_backbone
from headstart.backbones.providers.keras import open_keras
from headstart.backbones.providers.timm import open_timm
from headstart.backbones.steps import measure_steps
from headstart.errors import BackboneError
from headstart.finetune.folding import fold_batch_norms, unfold
from headstart.finetune.graph_module import GraphModule
from headstart.finetune.graph_weights import write_weights
from headstart.finetune.keras_module import KerasModule
from headstart.heads.head import SIGMOID, Head

OPEN = {"timm": open_timm, "keras": open_keras}
GRAPH_TOLERANCE = 1e-4  # of the largest value, between vectors of the network and of the graph that it becomes
TOLERANCE = 1e-3  # of a probability for the golden sample, between the frozen model and the network
LONG_TRAINING = 40_000  # images, each counted as often as it is trained on


@dataclass(frozen=True)
class Layer:
    """A layer of the network, with weights or without: its name, its stage and the names of its tensors.

    Stages are the parts between taps, counted from 0.
    """

    name: str
    stage: int
    tensors: tuple[str, ...]


class Network(nn.Module):  # type: ignore[misc]
    """Computes class scores [batch, k], divided by the temperature, of uint8 pixels [batch, height, width, 3].

    ``body`` is the backbone, ``head`` holds the tensors of the head. ``taps`` are the outputs of the body,
    ``head_taps`` those that the head takes. ``layers`` are in the order in which they run; ``stages`` is the number of
    stages.
    """

    def __init__(self, backbone: Backbone, options: InputOptions | None, head: Head) -> None:
        super().__init__()
        if any(tap.endswith("/flat") for tap in head.taps):
            raise BackboneError("A flattened cut cannot be fine-tuned; leave /flat off the cut.")
        self.backbone = backbone
        self.provider = backbone.id.partition(":")[0]
        self.torch_model: TorchModel | None = None
        self.norms: dict[str, str] = {}  # those that are folded, by the convolution before each
        if self.provider in OPEN:
            self._open_framework(options or InputOptions(), head.taps)
        else:
            graph = backbone.graph
            model = onnx.load_model_from_string(graph if isinstance(graph, bytes) else graph.read_bytes())
            self.body = GraphModule(model)
            self.taps = tuple(output.name for output in model.graph.output)
        self.head = nn.ParameterDict()
        self.head_taps = head.taps
        self.activation = head.activation
        self.memory_format = torch.channels_last
        self.set_head(head)
        self.layers = self._list_layers(self.body.layer_names if self.provider == "keras" else self._execution_order())
        self.stages = 1 + max(layer.stage for layer in self.layers)
        self.eval()

    def set_head(self, head: Head) -> None:
        """Put a fitted head in place of the present one."""
        device = self.head["bias"].device if "bias" in self.head else torch.device("cpu")
        tensors = {}
        if head.hidden_layer is not None:
            tensors["hidden_weights"], tensors["hidden_bias"] = (np.array(t, np.float32) for t in head.hidden_layer)
        tensors["weights"] = head.weights / np.float32(head.temperature)
        # The bias of a class without images is -inf, with which losses and interpolations would not be finite.
        tensors["bias"] = np.maximum(head.bias / np.float32(head.temperature), np.float32(-1e30))
        self._put_head({name: torch.from_numpy(value).to(device) for name, value in tensors.items()})

    def _put_head(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the head these tensors; where it has tensors of the same shapes, those take the values."""
        with torch.no_grad():
            for name in set(self.head) - set(tensors):
                del self.head[name]
            for name, value in tensors.items():
                if name in self.head and self.head[name].shape == value.shape:
                    self.head[name].copy_(value)
                else:
                    self.head[name] = nn.Parameter(value.clone())

    def get_head(self, original: Head, temperature: float) -> Head:
        """Return the present head, with the taps, kind and settings of ``original``."""
        tensors = {name: value.detach().cpu().numpy().copy() for name, value in self.head.items()}
        hidden_layer = None
        if "hidden_weights" in tensors:
            hidden_layer = (tensors["hidden_weights"], tensors["hidden_bias"])
        return replace(
            original,
            weights=tensors["weights"],
            bias=tensors["bias"],
            temperature=temperature,
            hidden_layer=hidden_layer,
        )

    def load_interpolated(self, start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> None:
        """Load ``(1 - alpha) * start + alpha * end``, tensors of one training by name (WiSE-FT).

        The head becomes one with the tensors of ``end``; tensors that ``end`` does not have stay.
        """
        self._put_head({name.removeprefix("head."): value for name, value in end.items() if name.startswith("head.")})
        interpolated = {
            name: start[name].lerp(value, alpha) if value.is_floating_point() and alpha < 1 else value
            for name, value in end.items()
        }
        self.load_state_dict(interpolated, strict=False)

    def vectors(self, pixels: Tensor) -> Tensor:
        """Compute the vectors [batch, d] of the head's taps side by side, equal to those of the backbone's graph."""
        if self.memory_format == torch.contiguous_format and self.provider != "keras":
            pixels = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)  # maps lie as the pixels do
        if self.torch_model is not None:
            pixels = pixels.float() * self.scale + self.shift
            pixels = pixels.flip(3) if self.torch_model.options.channels == "BGR" else pixels
            pixels = pixels if self.provider == "keras" else pixels.permute(0, 3, 1, 2)
        values = dict(zip(self.taps, self.body(pixels), strict=True))
        map_axes = (1, 2) if self.provider == "keras" else (2, 3)
        pooled = []
        for tap in self.head_taps:
            value = values[tap]
            if value.ndim > 2:  # maps are averaged over height and width, tokens over their sequence
                value = value.mean({4: map_axes, 3: (1,)}[value.ndim])
            pooled.append(value)
        return torch.cat(pooled, 1).float()

    def scores(self, vectors: Tensor) -> Tensor:
        """Compute class scores [batch, k] of vectors [batch, d]."""
        if "hidden_weights" in self.head:
            vectors = torch.relu(vectors @ self.head["hidden_weights"] + self.head["hidden_bias"])
        return vectors @ self.head["weights"] + self.head["bias"]

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute class scores [batch, k] of pixels."""
        return self.scores(self.vectors(pixels))

    def export(self, initial: Mapping[str, Tensor], pixels: NDArray[np.uint8]) -> Backbone:
        """Export the body with its present weights as a backbone in standard form. Raises BackboneError.

        ``initial`` are the tensors of the network as it began. Where these weights can be written into the graph of the
        frozen backbone they are, and the vectors of ``pixels`` [n, height, width, 3] show that the graph is right.
        """
        self.cpu().eval()
        unfold(self.body)
        source = f"{self.backbone.source}, fine-tuned with Headstart"
        graph = self.body.export() if self.torch_model is None else self._write_weights(initial, pixels)
        if graph is not None:
            sha256 = hashlib.sha256(graph).hexdigest()
            return measure_steps(replace(self.backbone, graph=graph, sha256=sha256, source=source))
        assert self.torch_model is not None
        new = to_backbone(self.provider, self._name, self.torch_model.export())
        # All that is not the network, such as how images are decoded, is that of the frozen backbone.
        frozen = replace(self.backbone, taps=new.taps, batch=new.batch)
        return replace(frozen, graph=new.graph, sha256=new.sha256, source=source)

    def move(self, device: torch.device, images: int) -> None:
        """Move the network to the device that will train it on so many images, each counted as often as it is used."""
        self.memory_format = self.fastest_format(device.type, images)
        self.to(device, memory_format=self.memory_format)

    def fastest_format(self, device_type: str, images: int) -> torch.memory_format:
        """Return how maps should lie in memory for a training on so many images on "cpu", "cuda" or "mps".

        With channels last a step is fastest. But then cuDNN compiles kernels for every depthwise convolution, half a
        second each. A training that ends before that pays has channels first, for which PyTorch has kernels of its own.
        Kernels of 7 x 7 stand between layer norms, behind which channels lie last in any case.
        """
        depthwise = [m for m in self.modules() if isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels]
        is_compiled = device_type == "cuda" and bool(depthwise) and all(max(m.kernel_size) < 7 for m in depthwise)
        return torch.contiguous_format if is_compiled and images < LONG_TRAINING else torch.channels_last

    def fold(self, pixels: NDArray[np.uint8]) -> int:
        """Compute batch norms that keep their statistics within the convolutions before them; return how many.

        The scores of ``pixels`` [n, height, width, 3] show that nothing changes but rounding.
        """
        images = torch.from_numpy(pixels).to(self.head["bias"].device)
        self.norms = fold_batch_norms(self.body, lambda: self(images))
        return len(self.norms)

    def check_start(self, pixels: NDArray[np.uint8], probabilities: NDArray[np.floating]) -> float:
        """Compare the network with the frozen model's probabilities [n, k] for pixels [n, height, width, 3].

        Returns the largest difference; raises BackboneError where it is more than ``TOLERANCE``.
        """
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            images = torch.from_numpy(pixels).to(self.head["bias"].device)
            scores = self(images)
            probabilities_here = torch.sigmoid(scores) if self.activation == SIGMOID else torch.softmax(scores, 1)
            computed = probabilities_here.cpu().numpy()
        largest = float(np.abs(computed - probabilities).max())
        if not largest <= TOLERANCE:
            raise BackboneError(
                f"{self.backbone.id} in PyTorch differs from the frozen model by {largest:.4f} in a probability; "
                "it cannot be fine-tuned."
            )
        return largest

    @property
    def _name(self) -> str:
        return self.backbone.id.partition(":")[2]

    @property
    def _root(self) -> str:
        """What the names of the body's modules begin with."""
        return "body.network." if self.provider in OPEN else "body."

    def _open_framework(self, options: InputOptions, head_taps: tuple[str, ...]) -> None:
        """Open the network of timm or Keras, and fold the normalisation of its images into scale and shift."""
        cuts = tuple(tap for tap in head_taps if tap != "features")
        request = parse_request(self.provider, self._name, options, cuts)
        self.torch_model = OPEN[self.provider](request)
        module = self.torch_model.module
        self.body = KerasModule(module.model, module.layer_names) if self.provider == "keras" else module
        self.taps = self.torch_model.taps
        mean, std = self.torch_model.options.mean, self.torch_model.options.std
        assert mean is not None
        assert std is not None
        scale = 1 / (255 * np.array(std, np.float64))
        shift = -np.array(mean) / np.array(std, np.float64)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))

    def _write_weights(self, initial: Mapping[str, Tensor], pixels: NDArray[np.uint8]) -> bytes | None:
        """Write the present weights of a network of timm into the frozen graph; None where that cannot be or is wrong.

        The parameters are those of ``export``.
        """
        graph = self.backbone.graph if isinstance(self.backbone.graph, bytes) else self.backbone.graph.read_bytes()
        if self.provider != "timm" or hashlib.sha256(graph).hexdigest() != self.backbone.sha256:
            return None
        start = {name.removeprefix("body."): value for name, value in initial.items() if name.startswith("body.")}
        written = write_weights(graph, self.body, self.norms, start)
        if written is None:
            return None
        with torch.no_grad():
            expected = self.vectors(torch.from_numpy(pixels)).numpy()
        session = open_session(written)
        taps = list(self.head_taps)
        vectors = np.concatenate([np.concatenate(session.run(taps, {"pixels": image[None]}), 1) for image in pixels])
        is_right = np.abs(vectors - expected).max() <= GRAPH_TOLERANCE * np.abs(expected).max()
        return written if is_right else None

    def _execution_order(self) -> tuple[str, ...]:
        """Return the names of the layers in the order in which they run, by a run on a black image."""
        order: list[str] = []
        hooks = []
        for name, module in self.named_modules():
            if name.startswith(self._root) and _is_layer(module):
                hooks.append(module.register_forward_hook(lambda *_, name=name: order.append(name)))
        preprocess = self.backbone.preprocess
        with torch.no_grad():
            self.vectors(torch.zeros(1, preprocess.height, preprocess.width, 3, dtype=torch.uint8))
        for hook in hooks:
            hook.remove()
        return tuple(dict.fromkeys(name.removeprefix(self._root) for name in order))

    def _list_layers(self, names: tuple[str, ...]) -> tuple[Layer, ...]:
        """Make the layers ``names``, in the order in which they run.

        A parameter of a module that is no layer itself belongs to the first layer within that module.
        """
        root = self._root
        paths = [f"{root}{name}" for name in names]
        positions = {path: i for i, path in enumerate(paths)}
        tensors: dict[str, list[str]] = {path: [] for path in paths}
        for parameter, _ in self.named_parameters():
            owner = parameter.rpartition(".")[0]
            owners = [path for path in paths if f"{parameter}.".startswith(f"{path}.")] or [
                path for path in paths if f"{path}.".startswith(f"{owner}.")
            ]
            if parameter.startswith("body.") and owners:
                tensors[min(owners, key=positions.__getitem__)].append(parameter)
        # Layers of a built-in network are not named by its taps.
        ends = [getattr(self.body, "last_layers", {}).get(tap, tap) for tap in self.taps if tap != "features"]
        stage_ends = [
            max((i for i, path in enumerate(paths) if f"{path}.".startswith(f"{root}{end}.")), default=-1)
            for end in ends
        ]
        return tuple(
            Layer(path.removeprefix(root), sum(0 <= end < i for end in stage_ends), tuple(tensors[path]))
            for i, path in enumerate(paths)
        )


def _is_layer(module: nn.Module) -> bool:
    return not list(module.children()) and type(module) is not nn.Module
