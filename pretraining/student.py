"""The student: MobileNetV2 with fewer hidden channels and blocks, but the teacher's stage widths.

Inverted residual blocks: Sandler et al. 2018, "MobileNetV2", section 3. Five stages, each ending at a tap. The taps
have the teacher's widths, so a stage can take the teacher's map as its input and be compared with the teacher's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = ("stage2", "stage3", "stage4", "stage5", "features")

# By block, named as timm names them: channels in, hidden channels, channels out, stride.
TEACHER_BLOCKS = {
    "0.0": (3, 32, 16, 2),  # the stem in place of the expansion
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
class BlockSpec:
    """One block: the teacher's block that it comes from, the one whose output it must produce, its hidden channels."""

    source: str
    target: str
    hidden: int


FULL = tuple(BlockSpec(name, name, shape[1]) for name, shape in TEACHER_BLOCKS.items())

# Where a block is dropped, the one before it in the stage must produce the dropped one's output. Early maps are large,
# so channels cost time there and most of them are pruned; late maps are small, so channels are nearly free.
HEADSTART_S = (
    BlockSpec("0.0", "0.0", 16),
    BlockSpec("1.0", "1.0", 48),
    BlockSpec("1.1", "1.1", 64),
    BlockSpec("2.0", "2.0", 80),
    BlockSpec("2.1", "2.2", 112),
    BlockSpec("3.0", "3.0", 128),
    BlockSpec("3.1", "3.1", 224),
    BlockSpec("3.2", "3.3", 224),
    BlockSpec("4.0", "4.0", 320),
    BlockSpec("4.1", "4.1", 384),
    BlockSpec("4.2", "4.2", 384),
    BlockSpec("5.0", "5.0", 576),
    BlockSpec("5.1", "5.1", 704),
    BlockSpec("5.2", "5.2", 704),
    BlockSpec("6.0", "6.0", 960),
)


class ConvUnit(nn.Module):
    """Convolution, batch norm (until it is folded), ``activation``.

    ``activation`` is "relu", "relu6" or None. Stride 2 pads right and bottom only, like TensorFlow.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: str | None,
        norm: bool,
    ):
        super().__init__()
        self.pads_asymmetrically = stride == 2
        padding = 0 if self.pads_asymmetrically else kernel // 2
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=not norm)
        self.norm = nn.BatchNorm2d(channels_out) if norm else nn.Identity()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if self.pads_asymmetrically:
            x = F.pad(x, (0, 1, 0, 1))
        x = self.norm(self.conv(x))
        if self.activation is None:
            return x
        return F.relu6(x) if self.activation == "relu6" else F.relu(x)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the one convolution that the unit is at inference."""
        weight = self.conv.weight.detach()
        if isinstance(self.norm, nn.Identity):
            assert self.conv.bias is not None
            return weight, self.conv.bias.detach()
        norm = self.norm
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        return weight * scale[:, None, None, None], norm.bias.detach() - norm.running_mean * scale


class Block(nn.Module):
    """Expand (or the stem), filter each channel, project; plus the input where the shapes agree."""

    def __init__(self, spec: BlockSpec, *, norm: bool, activation: str = "relu"):
        super().__init__()
        channels_in, _, channels_out, stride = TEACHER_BLOCKS[spec.source]
        hidden = spec.hidden
        if spec.source == "0.0":
            self.expand = ConvUnit(channels_in, hidden, 3, stride=stride, activation=activation, norm=norm)
            self.filter = ConvUnit(hidden, hidden, 3, groups=hidden, activation=activation, norm=norm)
        else:
            self.expand = ConvUnit(channels_in, hidden, activation=activation, norm=norm)
            self.filter = ConvUnit(hidden, hidden, 3, stride=stride, groups=hidden, activation=activation, norm=norm)
        self.project = ConvUnit(hidden, channels_out, activation=None, norm=norm)
        self.activation = activation
        self.is_residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.filter(self.expand(x)))
        return x + y if self.is_residual else y


class Student(nn.Module):
    """Pixels in [-1, 1], [n, 3, h, w], h and w multiples of 32, to the maps of the five stages."""

    def __init__(self, blocks: Sequence[BlockSpec] = HEADSTART_S, *, norm: bool = False, activation: str = "relu"):
        super().__init__()
        self.specs = tuple(blocks)
        stages: list[list[nn.Module]] = [[], [], [], [], []]
        for spec in self.specs:
            stages[STAGE_OF[spec.source[0]]].append(Block(spec, norm=norm, activation=activation))
        stages[4].append(ConvUnit(HEAD_IN, HEAD_OUT, activation=activation, norm=norm))
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def blocks(self) -> list[Block]:
        """Return the blocks in order, without the last convolution."""
        return [block for stage in self.stages[:4] for block in stage]

    def forward(self, pixels: Tensor, teacher_maps: Sequence[Tensor] = (), forcing: float = 0.0) -> list[Tensor]:
        """Compute the maps; ``forcing`` in [0, 1] is the share of each stage's input that is the teacher's map."""
        maps: list[Tensor] = []
        x = pixels
        for i, stage in enumerate(self.stages):
            if i and forcing > 0:
                x = torch.lerp(x, teacher_maps[i - 1], forcing) if forcing < 1 else teacher_maps[i - 1]
            x = stage(x)
            maps.append(x)
        return maps
