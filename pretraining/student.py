"""The student: MobileNetV2 with fewer hidden channels and blocks, the teacher's stage widths kept.

Inverted residual blocks: Sandler et al. 2018, "MobileNetV2", section 3. Five stages, each ending at a tap.
The taps have the teacher's widths, so a stage can be fed the teacher's map and judged by the teacher's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = ("stage2", "stage3", "stage4", "stage5", "features")

# block -> channels in, hidden, out, stride; named as timm names them
TEACHER_BLOCKS = {
    "0.0": (3, 32, 16, 2),  # the stem takes the place of the expansion
    "1.0": (16, 96, 24, 2),
    "1.1": (24, 144, 24, 1),
    "2.0": (24, 144, 32, 2),
    "2.1": (32, 192, 32, 1),
    "2.2": (32, 192, 32, 1),
    "3.0": (32, 192, 64, 2),
    "3.1": (64, 384, 64, 1),
    "3.2": (64, 384, 64, 1),
    "3.3": (64, 384, 64, 1),
    "4.0": (64, 384, 96, 1),
    "4.1": (96, 576, 96, 1),
    "4.2": (96, 576, 96, 1),
    "5.0": (96, 576, 160, 2),
    "5.1": (160, 960, 160, 1),
    "5.2": (160, 960, 160, 1),
    "6.0": (160, 960, 320, 1),
}
STAGE_OF = {"0": 0, "1": 0, "2": 1, "3": 2, "4": 2, "5": 3, "6": 3}
HEAD_IN, HEAD_OUT = 320, 1280


@dataclass(frozen=True)
class Part:
    """One block: the teacher's block it comes from, the one whose output it must give, its hidden width."""

    source: str
    target: str
    hidden: int


FULL = tuple(Part(name, name, shape[1]) for name, shape in TEACHER_BLOCKS.items())

# Where a block is dropped, the one before it in the stage aims at the dropped one's output. Early maps are
# large, so channels cost time there and are cut hardest; late maps are small, so channels are nearly free.
HEADSTART_S = (
    Part("0.0", "0.0", 16),
    Part("1.0", "1.0", 48),
    Part("1.1", "1.1", 64),
    Part("2.0", "2.0", 80),
    Part("2.1", "2.2", 112),
    Part("3.0", "3.0", 128),
    Part("3.1", "3.1", 224),
    Part("3.2", "3.3", 224),
    Part("4.0", "4.0", 320),
    Part("4.1", "4.1", 384),
    Part("4.2", "4.2", 384),
    Part("5.0", "5.0", 576),
    Part("5.1", "5.1", 704),
    Part("5.2", "5.2", 704),
    Part("6.0", "6.0", 960),
)


class Unit(nn.Module):
    """Convolution, batch norm (until folded), ReLU. Stride 2 pads right and bottom only, like TensorFlow."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, groups: int, act: bool, norm: bool, relu6: bool):
        super().__init__()
        self.shifted = stride == 2
        padding = 0 if self.shifted else kernel // 2
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=not norm)
        self.norm = nn.BatchNorm2d(cout) if norm else nn.Identity()
        self.act = act
        self.relu6 = relu6

    def forward(self, x: Tensor) -> Tensor:
        if self.shifted:
            x = F.pad(x, (0, 1, 0, 1))
        x = self.norm(self.conv(x))
        if not self.act:
            return x
        return F.relu6(x) if self.relu6 else F.relu(x)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that the unit is at inference."""
        weight = self.conv.weight.detach()
        if isinstance(self.norm, nn.Identity):
            assert self.conv.bias is not None
            return weight, self.conv.bias.detach()
        norm = self.norm
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        return weight * scale[:, None, None, None], norm.bias.detach() - norm.running_mean * scale


class Block(nn.Module):
    """Expand (or the stem), filter each channel, project; plus the input where shapes agree."""

    def __init__(self, part: Part, norm: bool, relu6: bool):
        super().__init__()
        cin, _, cout, stride = TEACHER_BLOCKS[part.source]
        stem = part.source == "0.0"
        hidden = part.hidden
        self.expand = Unit(cin, hidden, 3 if stem else 1, stride if stem else 1, 1, True, norm, relu6)
        self.filter = Unit(hidden, hidden, 3, 1 if stem else stride, hidden, True, norm, relu6)
        self.project = Unit(hidden, cout, 1, 1, 1, False, norm, relu6)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.filter(self.expand(x)))
        return x + y if self.residual else y


class Student(nn.Module):
    """Pixels in [-1, 1], [n, 3, h, w], h and w multiples of 32, to the five stages' maps."""

    def __init__(self, parts: Sequence[Part] = HEADSTART_S, *, norm: bool = False, relu6: bool = False):
        super().__init__()
        self.parts = tuple(parts)
        stages: list[list[nn.Module]] = [[], [], [], [], []]
        for part in parts:
            stages[STAGE_OF[part.source[0]]].append(Block(part, norm, relu6))
        stages[4].append(Unit(HEAD_IN, HEAD_OUT, 1, 1, 1, True, norm, relu6))
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def blocks(self) -> list[Block]:
        return [block for stage in self.stages[:4] for block in stage]

    def forward(self, pixels: Tensor, given: Sequence[Tensor] = (), share: float = 0.0) -> list[Tensor]:
        """``share`` in [0, 1]: how much of each stage's input is the teacher's map in ``given``."""
        maps: list[Tensor] = []
        x = pixels
        for index, stage in enumerate(self.stages):
            if index and share > 0:
                x = torch.lerp(x, given[index - 1], share) if share < 1 else given[index - 1]
            x = stage(x)
            maps.append(x)
        return maps
