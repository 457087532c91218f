"""Train the embedded network on clear scenes: minutes on two CPU cores, from a seed; its test is on hard ones, too.

    python -m scripts.train_mini --out DIR [--seed N] [--epochs N]

Writes mini.safetensors and model_card.md; an interrupted training in the same folder goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import normalize
from tqdm import tqdm

from gradcampp.errors import InputError
from gradcampp.files import atomic_write
from gradcampp.networks.mini import BLOCKS, LAYER, PREPROCESSING, MiniVGG
from gradcampp.scenes import CLASSES, SIZE, draw, pair
from scripts import run


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the machine."""

    seed: int = 0
    scenes: int = 16000
    epochs: int = 6
    guided: int = 2  # epochs, the first ones, that train the convolutions alone (see `_Guided`)
    batch: int = 64
    rate: float = 2e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    grey: float = 0.25  # fraction of training pictures shown without colour


class _Scenes(Dataset[tuple[Tensor, int]]):
    """Single-class scenes as (3, SIZE, SIZE) uint8 and label."""

    def __init__(self, seed: int, split: str, n: int, clear: bool) -> None:
        self.seed, self.split, self.n, self.clear = seed, split, n, clear

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        drawn = draw(self.seed, self.split, index, clear=self.clear)
        return torch.from_numpy(drawn.pixels).permute(2, 0, 1), drawn.label


def collect(seed: int, split: str, n: int, workers: int = 2, clear: bool = True) -> tuple[Tensor, Tensor]:
    """Scenes 0 to n - 1 of a split in memory, clear or hard: pixels (n, 3, SIZE, SIZE) uint8 and labels (n,)."""
    batches = DataLoader(_Scenes(seed, split, n, clear), batch_size=100, num_workers=workers)
    pixels = torch.empty(n, 3, SIZE, SIZE, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    labels = torch.empty(n, dtype=torch.int64)
    for i, (x, y) in enumerate(tqdm(batches, desc=f"drawing {split}")):
        pixels[i * 100 : i * 100 + len(x)], labels[i * 100 : i * 100 + len(y)] = x, y
    return pixels, labels


def _inputs(pixels: Tensor) -> Tensor:
    """From uint8 (B, 3, H, W) to the network's input."""
    inputs: Tensor = normalize(pixels.float() / 255, list(PREPROCESSING.mean), list(PREPROCESSING.std))
    return inputs


def grey(pixels: Tensor) -> Tensor:
    """The same pictures without colour, uint8 (B, 3, H, W)."""
    r, g, b = pixels.float().unbind(1)
    return (0.299 * r + 0.587 * g + 0.114 * b).round().to(torch.uint8)[:, None].expand_as(pixels)


def with_batch_norm(model: MiniVGG) -> MiniVGG:
    """The network with batch normalisation after every convolution, for its training; `fold_batch_norm` removes it."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in model.features.named_children():
        layers[name] = layer
        if isinstance(layer, nn.Conv2d):
            layers[name.replace("conv", "norm")] = nn.BatchNorm2d(layer.out_channels)
    model.features = nn.Sequential(layers)
    return model


@torch.no_grad()
def fold_batch_norm(model: MiniVGG) -> MiniVGG:
    """The same function in evaluation mode, with batch normalisation absorbed by the convolutions."""
    model, plain = model.eval(), MiniVGG()
    plain.classifier.load_state_dict(model.classifier.state_dict())
    for name, target in plain.features.named_children():
        if isinstance(target, nn.Conv2d):
            conv, norm = getattr(model.features, name), getattr(model.features, name.replace("conv", "norm"))
            target.load_state_dict(fuse_conv_bn_eval(conv, norm).state_dict())
    return plain.eval()


class _Guided(nn.Module):
    """The network with a second, temporary head that sees only the maximum of every feature map.

    The maximum does not care where a thing is, so this guide learns at once and teaches the convolutions what to look for. The
    fully connected head alone would not start in our time: it has to find small things anywhere on a busy ground.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = with_batch_norm(MiniVGG())
        self.guide = nn.Linear(BLOCKS[-1][-1], len(CLASSES))

    def forward(self, x: Tensor, alone: bool = False) -> list[Tensor]:
        """Scores (B, classes) of the guide, and unless it is alone of the network."""
        pooled = self.network.features(x)  # (B, 96, 8, 8)
        scores = [self.guide(pooled.amax((2, 3)))]
        return scores if alone else [*scores, self.network.classifier(pooled.flatten(1))]

    def latest(self, alone: bool) -> Callable[[Tensor], Tensor]:
        """The last of these scores as a function of the input."""
        return lambda x: self(x, alone)[-1]


def _augment(pixels: Tensor, colourless: float) -> Tensor:
    """Mirrors half of the pictures, shifts them all by up to eight pixels, and takes the colour from some."""
    out = torch.where((torch.rand(len(pixels)) < 0.5).view(-1, 1, 1, 1), pixels.flip(3), pixels)
    shift = torch.randint(-8, 9, (2,)).tolist()
    out = out.roll(shift, (2, 3))
    return torch.where((torch.rand(len(pixels)) < colourless).view(-1, 1, 1, 1), grey(out), out)


@torch.inference_mode()
def probabilities(model: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Softmax scores, (n, classes), of uint8 pictures."""
    return torch.cat([model(_inputs(part)).softmax(1) for part in torch.split(pixels, 100)])


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(1) == labels).double().mean())


def _epoch(model: _Guided, optimiser: Any, schedule: Any, data: tuple[Tensor, Tensor], recipe: Recipe, epoch: int) -> float:
    """One pass over the training scenes; returns the mean loss. Depends on the epoch, not on what ran before."""
    pixels, labels = data
    torch.manual_seed(recipe.seed * 1000 + epoch)
    model.train()
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    order, total = torch.randperm(len(labels)), 0.0
    for part in tqdm(torch.split(order, recipe.batch), desc=f"epoch {epoch + 1}/{recipe.epochs}"):
        x = _inputs(_augment(pixels[part], recipe.grey)).contiguous(memory_format=torch.channels_last)
        losses = torch.stack([criterion(scores, labels[part]) for scores in model(x, epoch < recipe.guided)])
        optimiser.zero_grad()
        torch.autograd.backward(losses.sum())
        optimiser.step()
        schedule.step()
        total += losses[-1].item() * len(part)
    return total / len(labels)


def _card(recipe: Recipe, history: list[list[float]], measured: dict[str, str], path: Path) -> str:
    """The model card, in Markdown."""
    rows = "\n".join(f"| {i} | {loss:.4f} | {accuracy:.4f} | {s:.0f} |" for i, (loss, accuracy, s) in enumerate(history, 1))
    facts = "\n".join(f"| {name} | {value} |" for name, value in measured.items())
    return f"""# MiniVGG on generated scenes

A VGG-style network for the default experiment of the companion: small enough to ship, with the layer the paper studies.

- **Classes:** {", ".join(CLASSES)}.
- **Input:** RGB {SIZE} x {SIZE}, pixels in [0, 1], mean {PREPROCESSING.mean}, standard deviation {PREPROCESSING.std}.
- **Layer:** `{LAYER}`, the ReLU after the last convolution and before the last max-pooling, 96 x 16 x 16.
- **Weights:** `{path.name}`, {path.stat().st_size} bytes, float16 (computed in float32),
  SHA-256 `{hashlib.sha256(path.read_bytes()).hexdigest()}`.
- **Data:** `scenes.draw(seed, split, index, clear=True)`, drawn by this project; no photographs, no people, nothing downloaded.
- **Trained on clear scenes only:** one class, well lit. The experiment asks it about hard scenes (`clear=False`), which hold
  smaller things of other classes, mist and dim light; it has seen none of these, as little as pairs of classes.
- **Recipe:** `{json.dumps(asdict(recipe))}`; AdamW, one-cycle rate, label smoothing, mirroring, shifts,
  {recipe.grey:.0%} of the pictures in greyscale; batch normalisation (folded afterwards) and a second head on the maxima of
  the feature maps (dropped afterwards) while training. The first {recipe.guided} epochs train
  that head and the convolutions only, and the learning curve shows its loss and accuracy there. torch {torch.__version__}, CPU.
- **Use:** to study attribution methods on pictures whose truth is known. It knows nothing about photographs.

## Measured on unseen scenes (split "test")

| quantity | value |
|---|---|
{facts}

## Learning curve

| epoch | training loss | validation accuracy | seconds |
|---|---|---|---|
{rows}
"""


def train(out: Path, seed: int = 0, *, workers: int = 2, held_out: int = 1000, **changes: Any) -> dict[str, str]:
    """Trains the network and writes `mini.safetensors` and `model_card.md`.

    Args:
        out: folder to write to; it also holds the checkpoint of an unfinished run.
        seed: of the initial weights, the order and the training scenes.
        workers: processes that draw scenes.
        held_out: scenes for validation, scenes for the test, and pairs.
        **changes: other fields of `Recipe`.

    Returns:
        What was measured on the test scenes, as in the model card.

    Raises:
        InputError: if the folder holds an unfinished training with another recipe.
    """
    start, folder, recipe = time.time(), out, Recipe(seed=seed, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    data = collect(seed, "train", recipe.scenes, workers)
    validation = collect(seed, "validation", held_out, workers)
    drawing = time.time() - start

    torch.manual_seed(seed)
    model = _Guided().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * -(-recipe.scenes // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps, pct_start=0.15)
    history: list[list[float]] = []
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["recipe"] != asdict(recipe):
            raise InputError(f"{checkpoint} was made with {saved['recipe']}, not with {asdict(recipe)}; choose another --out")
        history = saved["history"]
        for part in (model, optimiser, schedule):
            part.load_state_dict(saved[type(part).__name__])
    for epoch in range(len(history), recipe.epochs):
        began = time.time()
        loss = _epoch(model, optimiser, schedule, data, recipe, epoch)
        model.eval()
        accuracy = _accuracy(probabilities(model.latest(epoch < recipe.guided), validation[0]), validation[1])
        history.append([loss, accuracy, time.time() - began])
        tqdm.write(f"epoch {epoch + 1}: loss {loss:.4f}, validation accuracy {accuracy:.4f}")
        state = {type(part).__name__: part.state_dict() for part in (model, optimiser, schedule)}
        with atomic_write(checkpoint) as temporary:
            torch.save({"recipe": asdict(recipe), "history": history, **state}, temporary)

    path = folder / "mini.safetensors"
    with atomic_write(path) as temporary:
        save_file(
            {name: value.half().contiguous() for name, value in fold_batch_norm(model.network).state_dict().items()}, temporary
        )
    trained = drawing + sum(seconds for _, _, seconds in history)
    measured = {"training time, drawing included": f"{trained / 60:.1f} minutes, {torch.get_num_threads()} threads"}
    trained_network = MiniVGG()
    trained_network.load_state_dict(load_file(path))
    measured |= measure(trained_network.eval(), seed, held_out, workers)
    (folder / "model_card.md").write_text(_card(recipe, history, measured, path))
    checkpoint.unlink(missing_ok=True)
    return measured


def measure(model: MiniVGG, seed: int, n: int, workers: int = 2) -> dict[str, str]:
    """Accuracy and scores on n hard and on the same n clear test scenes, and on n pair scenes."""
    facts = {"parameters": str(sum(p.numel() for p in model.parameters()))}
    for kind, clear in (("hard", False), ("clear", True)):
        found = _recognised(model, *collect(seed, "test", n, workers, clear))
        facts |= {f"{kind} scenes: {name}": value for name, value in found.items()}
    couples = [pair(seed, "test", i) for i in range(n)]
    top = probabilities(model, torch.stack([torch.from_numpy(p.pixels).permute(2, 0, 1) for p in couples])).topk(2)
    first = sum(int(t[0]) in p.labels for t, p in zip(top.indices.tolist(), couples, strict=True)) / n
    both = sum(set(t) == set(p.labels) for t, p in zip(top.indices.tolist(), couples, strict=True)) / n
    return facts | {"pairs: best class is one of the two": f"{first:.4f}", "pairs: best two classes are the two": f"{both:.4f}"}


def _recognised(model: MiniVGG, pixels: Tensor, labels: Tensor) -> dict[str, str]:
    """Accuracy and scores on some scenes, and the accuracy on the same without colour."""
    scores = probabilities(model, pixels)
    own = scores.gather(1, labels[:, None])[:, 0]
    quantiles = own.double().quantile(torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64))
    by_class = [f"{name} {_accuracy(scores[labels == i], labels[labels == i]):.3f}" for i, name in enumerate(CLASSES)]
    return {
        "top-1 accuracy": f"{_accuracy(scores, labels):.4f}",
        "top-1 accuracy in greyscale": f"{_accuracy(probabilities(model, grey(pixels)), labels):.4f}",
        "top-1 accuracy by class": ", ".join(by_class),
        "score of the label above 0.5": f"{float((own > 0.5).double().mean()):.4f}",
        "mean score of the label": f"{float(own.mean()):.4f}",
        "quantiles 1, 5, 25, 50, 75, 95 %": ", ".join(f"{q:.4f}" for q in quantiles.tolist()),
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="For the two files.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of weights, order and scenes.")
@click.option("--epochs", type=click.IntRange(min=1), default=Recipe.epochs, show_default=True, help="Passes over the scenes.")
def main(out: Path, seed: int, epochs: int) -> None:
    """Train the embedded network on generated scenes: minutes on two CPU cores, from a seed."""
    for name, value in train(out, seed, epochs=epochs).items():
        print(f"{name}: {value}")
    print(f"wrote {out / 'mini.safetensors'} and {out / 'model_card.md'}")


if __name__ == "__main__":
    run(main)
