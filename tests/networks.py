"""Small networks with the peculiarities that real ones have."""

from __future__ import annotations

from collections.abc import Callable
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


class Keeping(nn.Module):
    """Its layer keeps its output, or what it has made of it, and the head reads that as well as what the layer returns."""

    def __init__(self, keep: Callable[[Tensor], Tensor], inner: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.after = nn.Conv2d(3, 4, 3), after
        self.layer: Any = _Keeper(keep, inner)
        self.head, self.side = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.after(self.layer(self.stem(images)))
        kept = self.layer.kept.flatten(2).mean(2) if self.layer.kept.ndim > 2 else self.layer.kept
        logits: Tensor = self.head(maps.mean((2, 3))).tanh() + self.side(kept) ** 2
        return logits


class _Keeper(nn.Module):
    def __init__(self, keep: Callable[[Tensor], Tensor], inner: nn.Module) -> None:
        super().__init__()
        self.keep, self.inner = keep, inner

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = self.inner(maps)
        self.kept = self.keep(result)
        return result


class Hooked(nn.Module):
    """A hook of the network's own keeps the output of its layer for the head."""

    def __init__(self, keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.Tanh()))
        self.head, self.side = nn.Linear(4, 3), nn.Linear(4, 3)
        self.kept = torch.empty(0)
        self.layer.register_forward_hook(lambda _module, _inputs, output: setattr(self, "kept", keep(output)))

    @property
    def layer(self) -> nn.Module:
        return self.body.get_submodule("1")

    def forward(self, images: Tensor) -> Tensor:
        maps = self.body(images)
        kept = self.kept.flatten(2).mean(2) if self.kept.ndim > 2 else self.kept
        logits: Tensor = self.head(maps.mean((2, 3))) + self.side(kept) ** 2
        return logits


class FrozenBackbone(Scored):
    """Runs everything up to its classifier without gradients, as fine-tuning does."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            maps = self.features(images)
            maps = maps * 2
        logits: Tensor = self.classifier(maps)
        return logits


class Transformer(nn.Module):
    """A vision transformer in miniature, of 8 x 8 patches; a class token and registers stand first, or an average reads all.

    ``linear`` makes the patches without a convolution.
    """

    def __init__(self, leading: int = 1, size: tuple[int, int] = (32, 32), width: int = 12, linear: bool = False) -> None:
        super().__init__()
        self.leading, self.linear, self.size = leading, linear, size
        self.patches = nn.Linear(192, width) if linear else nn.Conv2d(3, width, 8, 8)
        self.first = nn.Parameter(torch.randn(1, leading, width))
        self.places = nn.Parameter(torch.randn(1, leading + size[0] * size[1] // 64, width))
        self.blocks = nn.Sequential(_Block(width), _Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[2:]) != self.size:
            raise ValueError(f"expected {self.size}")
        pieces = nn.functional.unfold(images, 8, stride=8).mT if self.linear else images
        tokens = self.patches(pieces) if self.linear else self.patches(pieces).flatten(2).mT  # (B, N, K)
        tokens = torch.cat([self.first.expand(len(images), -1, -1), tokens], 1) + self.places
        tokens = self.norm(self.blocks(tokens))
        logits: Tensor = self.head(tokens[:, 0] if self.leading else tokens.mean(1))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        seen = self.norm1(tokens)
        tokens = tokens + (self.query(seen) @ self.key(seen).mT / 4).softmax(2) @ self.value(seen)
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class Last(nn.Module):
    """Channels last, as many of them as rows and columns on a picture of 32 x 32 pixels: (B, 8, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.norm(self.conv(images).permute(0, 2, 3, 1))).mean((1, 2)))
        return logits


class Cosine(nn.Module):
    """Scores are cosines, by a parameter of the network itself; ``conv1`` has as many channels as there are classes."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, classes, 3), nn.Conv2d(classes, 8, 3)
        self.centres = nn.Parameter(torch.randn(classes, 8))

    def forward(self, images: Tensor) -> Tensor:
        found = torch.relu(self.conv2(torch.relu(self.conv1(images)))).mean((2, 3))
        return nn.functional.normalize(found) @ nn.functional.normalize(self.centres).mT


class Returning(Scored):
    """Returns its logits in some wrapper."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        maps = self.features(images)
        return self.wrap(self.classifier(maps), maps)
