"""The embedded network: VGG in miniature, trained on the clear ones of the generated scenes.

Its last feature maps, `features.block4_relu3`, are to it what Keras `block5_conv3` (torchvision `features.29`) is to VGG16: the
ReLU after the last convolution, before the last max-pooling.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from importlib.resources import files

from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from gradcampp.errors import InputError
from gradcampp.networks.preprocessing import Preprocessing
from gradcampp.scenes import CLASSES, SIZE

LAYER = "features.block4_relu3"  # (B, 96, 16, 16) for pictures of 128 x 128
PREPROCESSING = Preprocessing(SIZE, SIZE, mean=(0.43, 0.43, 0.38), std=(0.23, 0.20, 0.22), origin="its own")
SHA256 = "3283e37746a6bfa0ced95cace9dda201ace638f484f574d3c4b9b3ccfda34c57"
BLOCKS = ((12,), (24, 24), (48, 48), (96, 96, 96))  # channels of the convolutions
HIDDEN = 64


class MiniVGG(nn.Module):
    """Four blocks of 3 x 3 convolutions and max-pooling, then a fully connected head with two hidden layers.

    Maps normalised pictures (B, 3, 128, 128) to the scores before softmax, (B, classes).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = 3
        for i, block in enumerate(BLOCKS, start=1):
            for j, width in enumerate(block, start=1):
                layers[f"block{i}_conv{j}"] = nn.Conv2d(channels, width, 3, padding=1)
                layers[f"block{i}_relu{j}"] = nn.ReLU()
                channels = width
            layers[f"block{i}_pool"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels * (SIZE >> len(BLOCKS)) ** 2, HIDDEN),
                relu1=nn.ReLU(),
                drop1=nn.Dropout(0.1),
                fc2=nn.Linear(HIDDEN, HIDDEN),
                relu2=nn.ReLU(),
                drop2=nn.Dropout(0.1),
                predictions=nn.Linear(HIDDEN, len(CLASSES)),
            )
        )
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Scores before softmax."""
        maps = self.features(x)  # (B, 96, 8, 8)
        scores: Tensor = self.classifier(maps.flatten(1))  # (B, classes)
        return scores


def load() -> MiniVGG:
    """The trained network that ships with the package, in evaluation mode and float32.

    Raises:
        InputError: if the file of weights is not the one that was published.
    """
    data = files("gradcampp").joinpath("resources", "mini.safetensors").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise InputError(f"the embedded weights are damaged: expected SHA-256 {SHA256}, got {found}; install the package again")
    model = MiniVGG()
    model.load_state_dict(load_tensors(data))  # float16 on disk
    return model.eval()
