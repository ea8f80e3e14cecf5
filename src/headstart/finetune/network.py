"""A backbone id as a trainable network that starts as the frozen model, and back to an ONNX backbone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from headstart.backbones import Backbone, InputOptions
from headstart.backbones.providers.framework import TorchModel, parse_request, to_backbone
from headstart.backbones.providers.keras import open_keras
from headstart.backbones.providers.timm import open_timm
from headstart.errors import BackboneError
from headstart.finetune.graph_module import GraphModule
from headstart.finetune.keras_module import KerasModule
from headstart.heads import Head

OPEN = {"timm": open_timm, "keras": open_keras}
SAME = 1e-3  # of the probabilities on the golden sample, frozen model against network


@dataclass(frozen=True)
class Layer:
    """A layer with weights of its own or none, as it is run: its name, its stage (between taps), its tensors' names."""

    name: str
    stage: int
    tensors: tuple[str, ...]


class Network(nn.Module):  # type: ignore[misc]
    """uint8 pixels [batch, height, width, 3] to class scores [batch, k], the temperature folded in.

    ``layers`` are in the order in which they run; ``stages`` counts the stages between taps.
    """

    def __init__(self, backbone: Backbone, options: InputOptions | None, head: Head) -> None:
        super().__init__()
        if any(tap.endswith("/flat") for tap in head.taps):
            raise BackboneError("A cut laid flat cannot be fine-tuned; leave /flat off the cut.")
        self.backbone, self.kind = backbone, backbone.id.partition(":")[0]
        self.opened: TorchModel | None = None
        if self.kind in OPEN:
            cuts = tuple(tap for tap in head.taps if tap != "features")
            self.opened = OPEN[self.kind](parse_request(self.kind, self._name, options or InputOptions(), cuts))
            module = self.opened.module
            self.body = KerasModule(module.model, module.layer_names) if self.kind == "keras" else module
            self.taps, how = self.opened.taps, self.opened.options
            assert how.mean is not None
            assert how.std is not None
            std = np.array(how.std, np.float64)
            scale, shift = 1 / (255 * std), -np.array(how.mean) / std
            self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
            self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))
        else:
            graph = backbone.graph
            model = onnx.load_model_from_string(graph if isinstance(graph, bytes) else graph.read_bytes())
            self.body, self.taps = GraphModule(model), tuple(output.name for output in model.graph.output)
        self.head = nn.ParameterDict()
        self.wanted = head.taps
        self.set_head(head)
        self.layers = self._layers(self.body.order if self.kind == "keras" else self._as_run())
        self.stages = 1 + max(layer.stage for layer in self.layers)
        self.eval()

    def set_head(self, head: Head) -> None:
        """Put a fitted head in place of the present one."""
        self.head.clear()
        if head.expansion is not None:
            self.head["expansion"], self.head["offset"] = (
                nn.Parameter(torch.from_numpy(np.array(each, np.float32))) for each in head.expansion
            )
        self.head["weights"] = nn.Parameter(torch.from_numpy(head.weights / np.float32(head.temperature)))
        bias = np.maximum(head.bias / np.float32(head.temperature), np.float32(-1e30))
        self.head["bias"] = nn.Parameter(torch.from_numpy(bias))

    def get_head(self, like: Head, temperature: float) -> Head:
        """The head as it is now."""
        value = {name: each.detach().cpu().numpy().copy() for name, each in self.head.items()}
        expansion = (value["expansion"], value["offset"]) if "expansion" in value else None
        return replace(like, weights=value["weights"], bias=value["bias"], temperature=temperature, expansion=expansion)

    def vectors(self, pixels: Tensor) -> Tensor:
        """The vectors [batch, d] of the head's taps side by side, those that the backbone's graph gives."""
        if self.opened is not None:
            pixels = pixels.float() * self.scale + self.shift
            pixels = pixels.flip(3) if self.opened.options.channels == "BGR" else pixels
            pixels = pixels if self.kind == "keras" else pixels.permute(0, 3, 1, 2)
        values = dict(zip(self.taps, self.body(pixels), strict=True))
        pooled, space = [values[tap] for tap in self.wanted], (1, 2) if self.kind == "keras" else (2, 3)
        return torch.cat([v.mean({4: space, 3: (1,)}[v.ndim]) if v.ndim > 2 else v for v in pooled], 1).float()

    def scores(self, vectors: Tensor) -> Tensor:
        """Class scores [batch, k] of vectors."""
        if "expansion" in self.head:
            vectors = torch.relu(vectors @ self.head["expansion"] + self.head["offset"])
        return vectors @ self.head["weights"] + self.head["bias"]

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return self.scores(self.vectors(pixels))

    def export(self) -> Backbone:
        """The backbone with the weights as they are now, in standard form. Raises BackboneError."""
        source = f"{self.backbone.source}, fine-tuned with Headstart"
        self.cpu().eval()
        if self.opened is None:
            assert isinstance(self.body, GraphModule)
            graph = self.body.export()
            return replace(self.backbone, graph=graph, sha256=hashlib.sha256(graph).hexdigest(), source=source)
        found = to_backbone(self.kind, self._name, self.opened.export())
        return replace(found, source=source)

    def check_start(self, pixels: np.ndarray[Any, Any], probabilities: np.ndarray[Any, Any]) -> float:
        """The largest difference to the frozen model's probabilities [n, k]. Raises BackboneError if it is more."""
        with torch.no_grad():
            found = torch.softmax(self(torch.from_numpy(pixels)), 1).numpy()
        worst = float(np.abs(found - probabilities).max())
        if not worst <= SAME:
            raise BackboneError(
                f"{self.backbone.id} in PyTorch differs from the frozen model by {worst:.4f} in a probability; "
                "it cannot be fine-tuned."
            )
        return worst

    @property
    def _name(self) -> str:
        return self.backbone.id.partition(":")[2]

    @property
    def _root(self) -> str:
        return "body.network." if self.kind in OPEN else "body."

    def _as_run(self) -> tuple[str, ...]:
        """The layers' names in the order of a run on an empty picture."""
        order: list[str] = []
        hooks = []
        for name, module in self.named_modules():
            if name.startswith(self._root) and _is_layer(module):
                hooks.append(module.register_forward_hook(lambda *_, name=name: order.append(name)))
        with torch.no_grad():
            pre = self.backbone.preprocess
            self.vectors(torch.zeros(1, pre.height, pre.width, 3, dtype=torch.uint8))
        for hook in hooks:
            hook.remove()
        return tuple(dict.fromkeys(name.removeprefix(self._root) for name in order))

    def _layers(self, names: tuple[str, ...]) -> tuple[Layer, ...]:
        """What a module holds itself goes with its first layer."""
        root = self._root
        order = [f"{root}{name}" for name in names]
        place = {name: i for i, name in enumerate(order)}
        tensors: dict[str, list[str]] = {name: [] for name in order}
        for name, _ in self.named_parameters():
            owner = name.rpartition(".")[0]
            under = [each for each in order if f"{name}.".startswith(f"{each}.")] or [
                each for each in order if f"{each}.".startswith(f"{owner}.")
            ]
            if name.startswith("body.") and under:
                tensors[min(under, key=place.__getitem__)].append(name)
        ends = [
            max((i for each, i in place.items() if f"{each}.".startswith(f"{root}{tap}.")), default=-1)
            for tap in self.taps
            if tap != "features"
        ]
        return tuple(
            Layer(name.removeprefix(root), sum(0 <= end < i for end in ends), tuple(tensors[name]))
            for i, name in enumerate(order)
        )


def _is_layer(module: nn.Module) -> bool:
    return not list(module.children()) and type(module) is not nn.Module
