"""Small networks with the peculiarities that real ones have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class InPlace(nn.Module):
    """A ReLU behind the explained layer overwrites the layer's own output."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3, padding=1)
        self.layer = nn.Conv2d(4, 5, 3, padding=1)
        self.after = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Linear(5 * 8 * 8, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.after(self.layer(torch.relu(self.trunk(images))))
        logits: Tensor = self.head(self.drop(self.pool(maps)).flatten(1))
        return logits


class Shared(nn.Module):
    """One convolution used three times, batch normalisation, a skip connection around the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.norm.running_mean = torch.randn(4)

    def forward(self, images: Tensor) -> Tensor:
        first = torch.relu(self.conv(self.stem(images)))
        second = torch.relu(self.norm(self.conv(first))) + first
        third = self.conv(second).tanh() * second
        logits: Tensor = self.head((third**2).mean((2, 3)))
        return logits


class Scored(nn.Module):
    """Ends like SqueezeNet: a 1x1 convolution makes the scores, an average pools them."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(6, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return 20 * logits


def scored() -> nn.Module:
    """A factory with fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Scored()


class _Square(torch.autograd.Function):
    """An operation of one's own whose backward looks at values, which no batching survives."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values**2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return 2 * values * gradient if bool((gradient != 0).any()) else gradient


class Custom(Scored):
    """An autograd.Function in the head."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(_Square.apply(self.features(images)))
        return logits


class Broken(Scored):
    """Returns NaN for one photograph: the one whose first channel is brightest at the corner."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return torch.where((images[:, 0, 0, 0] > 0.9)[:, None], torch.nan, logits)


class Vector(Scored):
    """Forgets the batch dimension."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[0]


def nothing() -> str:
    """A factory that returns no network."""
    return "network"


def failing() -> nn.Module:
    """A factory that raises."""
    raise RuntimeError("no such checkpoint\nsecond line")


class AllNaN(Scored):
    """Weights gone wrong."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * torch.nan


class View(Scored):
    """Flattens with view, which refuses channels-last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6 * 6 * 6, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        logits: Tensor = self.head(maps.view(maps.shape[0], -1))
        return logits


class Temperature(Scored):
    """A parameter of the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / self.temperature


class OneReLU(nn.Module):
    """One ReLU module everywhere, also behind the hidden layer of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)
        self.hidden, self.scores = nn.Linear(4 * 14 * 14, 5), nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.conv(images))
        logits: Tensor = self.scores(self.relu(self.hidden(maps.flatten(1))))
        return logits


class Rooted(Scored):
    """A gradient of infinity: the square root of a dead channel."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).mul(images.new_tensor([1.0, 0, 1, 1, 1, 1])[:, None, None]).sqrt())
        return logits
