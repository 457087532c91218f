"""Scenes as files in class folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from gradcampp.files import atomic_write
from gradcampp.scenes.scene import Scene, draw, label
from gradcampp.scenes.shapes import CLASSES

SPLIT = "test"  # of the generated scenes, hard: the embedded network was trained on clear ones of another split


def loader(seed: int, indices: Sequence[int], drawn: Callable[[int, str, int], Scene] = draw) -> DataLoader[Scene]:
    """Scenes of the test split in the order of their indices, by ``draw`` or by ``pair``, drawn in two processes."""
    return DataLoader(indices, batch_size=None, collate_fn=partial(drawn, seed, SPLIT), num_workers=2)  # type: ignore[arg-type]


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
