"""Scenes as files in class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from gradcampp.files import atomic_write
from gradcampp.scenes.scene import Scene, draw, label
from gradcampp.scenes.shapes import CLASSES

SPLIT = "test"  # of the generated scenes: the embedded network has not been trained on these


class _Scenes(Dataset[Scene]):
    """Generated scenes by place in a list of indices, for the worker processes of a DataLoader."""

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        self.seed, self.indices = seed, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Scene:
        return draw(self.seed, SPLIT, self.indices[place])


def loader(seed: int, indices: Sequence[int]) -> DataLoader[Scene]:
    """Scenes of the test split in the order of their indices, drawn in two processes."""
    return DataLoader(_Scenes(seed, indices), batch_size=None, num_workers=2)


def draw_scenes(folder: Path, seed: int, count: int) -> Path:
    """Write scenes 0 to count - 1 as PNG files below folders named by class; those that are there stay.

    They go into a folder of their own for each seed and count, so that no run meets the scenes of another.
    """
    folder = folder / f"seed{seed}-{count}"
    paths = [folder / CLASSES[label(seed, SPLIT, index)] / f"{index:05d}.png" for index in range(count)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    progress = tqdm(loader(seed, missing), initial=count - len(missing), total=count, unit="scene", disable=None)
    for index, scene in zip(missing, progress, strict=True):
        paths[index].parent.mkdir(parents=True, exist_ok=True)
        save_scene(scene, paths[index])
    return folder


def save_scene(scene: Scene, path: Path) -> None:
    """Write the pixels of a scene, whole or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(scene.pixels).save(temporary)
