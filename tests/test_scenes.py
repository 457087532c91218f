from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradcampp.scenes import drawing, grounds, shapes
from gradcampp.scenes import scene as module
from gradcampp.scenes.drawing import SIZE
from gradcampp.scenes.scene import _RADII, MAX_DISTRACTORS, MAX_INSTANCES, MIN_VISIBLE, Scene, _layout, _schedule, draw, pair
from gradcampp.scenes.shapes import CLASSES

CYCLE = len(CLASSES) * MAX_INSTANCES
KEYS = st.tuples(st.integers(0, 2**40), st.sampled_from(["train", "validation", "test"]), st.integers(0, 10**9))
FEW = settings(max_examples=40, deadline=None)


def digest(drawn: Scene) -> str:
    masks = [np.packbits(masks).tobytes() for masks in (drawn.masks, drawn.distractors)]
    parts = (drawn.pixels.tobytes(), masks[0], drawn.instance_labels.astype("<i8").tobytes(), masks[1])
    return hashlib.sha256(b"".join(parts)).hexdigest()


def grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask and everything within `by` pixels along rows, columns and diagonals."""
    out = mask.copy()
    for dy in range(-by, by + 1):
        for dx in range(-by, by + 1):
            shifted = np.zeros_like(mask)
            target = shifted[max(0, dy) : SIZE + min(0, dy), max(0, dx) : SIZE + min(0, dx)]
            target[:] = mask[max(0, -dy) : SIZE + min(0, -dy), max(0, -dx) : SIZE + min(0, -dx)]
            out |= shifted
    return out


def test_scenes_are_the_same_bytes_on_every_machine() -> None:
    whole, hard = hashlib.sha256(), hashlib.sha256()
    for i in range(CYCLE):
        whole.update(digest(draw(0, "test", i, clear=True)).encode())
        whole.update(digest(pair(0, "test", i)).encode())
        hard.update(digest(draw(0, "test", i)).encode())
    assert digest(draw(0, "train", 0, clear=True)) == "5ce6354466c0c507fa1a1c18dcc0a5f0a2f5f4e1969949666aa3dd06658bbf90"
    assert digest(pair(7, "test", 123)) == "5705a0a644c39e081f6847c0dbb5728c54415e77fe4ed4533c48fb54639b5d25"
    assert whole.hexdigest() == "6d228823e6a6fbb0619ce0cb32e01b800c7ef4ccfdb44927cd63d4406fdf47fc"
    assert hard.hexdigest() == "27de04d4b2c21465d014af4c32152cf33a37c717024f974d569d0030b32706ed"


@pytest.mark.parametrize("ground", grounds.GROUNDS)
def test_grounds_are_pictures_in_float32(ground: grounds.Ground) -> None:
    out = ground(drawing.Draw("a ground"))
    assert out.shape == (SIZE, SIZE, 3)
    assert out.dtype == np.float32
    assert out.min() >= 0
    assert out.max() <= 1.01
    assert out.std(axis=(0, 1)).min() > 0.02  # it has a texture


def test_order_does_not_matter() -> None:
    forward = [digest(draw(3, "train", i)) for i in range(12)]
    backward = [digest(draw(3, "train", i)) for i in reversed(range(12))]
    assert forward == backward[::-1]


def test_seed_split_index_and_kind_all_change_the_picture() -> None:
    same = [draw(0, "a", 0, label=1, instances=1), draw(1, "a", 0, label=1, instances=1), pair(0, "a", 0)]
    same += [draw(0, "b", 0, label=1, instances=1), draw(0, "a", 1, label=1, instances=1)]
    assert len({digest(drawn) for drawn in same}) == len(same)


@given(KEYS)
@FEW
def test_a_scene_has_what_it_says(key: tuple[int, str, int]) -> None:
    drawn = draw(*key)
    n = len(drawn.instance_labels)
    assert drawn.pixels.shape == (SIZE, SIZE, 3)
    assert drawn.pixels.dtype == np.uint8
    assert drawn.masks.shape == (n, SIZE, SIZE)
    assert drawn.masks.dtype == np.bool_
    assert 1 <= n <= MAX_INSTANCES
    assert drawn.labels == (drawn.label,)
    assert set(drawn.instance_labels.tolist()) == {drawn.label}
    assert drawn.masks.sum(axis=0).max() == 1, "masks overlap"
    assert drawn.masks.sum(axis=(1, 2)).min() >= 60, "an instance can hardly be seen"
    assert drawn.distractors.shape[1:] == (SIZE, SIZE)
    assert len(drawn.distractors) <= MAX_DISTRACTORS
    assert np.concatenate([drawn.masks, drawn.distractors]).sum(axis=0).max() == 1, "a distractor overlaps"
    assert drawn.distractors.sum() < drawn.masks.sum(), "a person would name another class"


@given(KEYS, st.integers(0, len(CLASSES) - 1), st.integers(1, MAX_INSTANCES))
@FEW
def test_class_and_number_can_be_asked_for(key: tuple[int, str, int], label: int, instances: int) -> None:
    drawn = draw(*key, label=label, instances=instances)
    assert drawn.instance_labels.tolist() == [label] * instances


@given(KEYS)
@FEW
def test_a_pair_has_two_classes(key: tuple[int, str, int]) -> None:
    drawn = pair(*key)
    assert len(set(drawn.labels)) == 2
    assert tuple(drawn.instance_labels.tolist()) == drawn.labels
    assert drawn.masks.sum(axis=0).max() == 1
    assert drawn.masks.sum(axis=(1, 2)).min() >= 100


def test_a_pair_of_asked_classes() -> None:
    assert pair(0, "test", 0, labels=(4, 2)).instance_labels.tolist() == [4, 2]


def test_objects_change_the_picture_where_their_masks_are_and_only_there() -> None:
    checked = 0
    for i in range(40):
        if grounds.foreground(drawing.Draw("scene", 5, "place", i, "foreground"))[0].any():
            continue  # it may be left out in one of the two
        drawn, empty = draw(5, "place", i), draw(5, "place", i, instances=0)
        assert empty.masks.shape == (0, SIZE, SIZE)
        changed = (drawn.pixels != empty.pixels).any(axis=2)
        covered = np.concatenate([drawn.masks, drawn.distractors]).sum(axis=0) > 0
        assert changed[covered].mean() > 0.97
        assert not changed[~grown(covered, 6)].any()  # edges and shadows end there
        checked += 1
    assert checked > 10


def test_distractors_are_of_all_other_classes_and_lie_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_labels: list[int] = []

    def spy(draw: drawing.Draw, label: int, *place: float) -> object:
        drawn_labels.append(label)
        return draw_object(draw, label, *place)

    draw_object = module._object
    monkeypatch.setattr("gradcampp.scenes.scene._object", spy)
    numbers: set[int] = set()
    met: set[tuple[int, int]] = set()
    for i in range(6 * CYCLE):
        clear = draw(0, "distractors", i, clear=True)
        assert clear.distractors.shape == (0, SIZE, SIZE)
        drawn_labels.clear()
        hard = draw(0, "distractors", i)
        own, others = drawn_labels[: len(hard.masks)], drawn_labels[len(hard.masks) :]
        assert set(own) == {hard.label}
        assert hard.label not in others
        assert len(hard.distractors) <= len(others)
        assert (hard.masks == clear.masks).all()
        numbers.add(len(hard.distractors))
        met.update((hard.label, other) for other in others)
    assert numbers == set(range(MAX_DISTRACTORS + 1))
    assert len(met) == len(CLASSES) * (len(CLASSES) - 1)


def test_hard_scenes_are_dim_and_their_objects_in_mist() -> None:
    contrasts = []
    for i in range(CYCLE):
        (clear, plain), (hard, dim) = (
            [draw(0, "mist", i, instances=n, clear=c).pixels.astype(float) for n in (2, 0)] for c in (True, False)
        )
        assert (dim <= plain).all()  # the same light, but darker
        assert dim.mean() < plain.mean()
        inside = draw(0, "mist", i, instances=2).masks.any(axis=0)
        seen, whole = (np.abs(full - empty)[inside].mean() / empty.mean() for full, empty in ((hard, dim), (clear, plain)))
        contrasts.append(seen / whole)
    assert 0.65 < np.mean(contrasts) < 0.85  # opacities are even over [0.5, 1]
    assert np.std(contrasts) > 0.05


def test_foregrounds_hide_parts_but_never_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    covered = [draw(0, "hidden", i).masks for i in range(CYCLE)]
    none = np.zeros((SIZE, SIZE), np.float32), np.zeros(3, np.float32)
    monkeypatch.setattr("gradcampp.scenes.scene.foreground", lambda _: none)
    whole = [draw(0, "hidden", i).masks for i in range(CYCLE)]
    visible = np.concatenate([c.sum((1, 2)) / w.sum((1, 2)) for c, w in zip(covered, whole, strict=True)])
    assert visible.min() >= MIN_VISIBLE
    assert visible.max() == 1
    assert 0.1 < (visible < 1).mean() < 0.5


def test_labels_and_numbers_are_balanced_in_every_block() -> None:
    for block in range(5):
        schedule = {_schedule(0, "test", block * CYCLE + k) for k in range(CYCLE)}
        assert schedule == {(label, n) for label in range(len(CLASSES)) for n in range(1, MAX_INSTANCES + 1)}


def test_blocks_and_splits_have_their_own_order() -> None:
    orders = [[_schedule(0, s, b * CYCLE + k) for k in range(CYCLE)] for s in ("train", "test") for b in range(3)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_pairs_meet_all_combinations() -> None:
    met = {tuple(sorted(pair_labels)) for pair_labels in (pair(0, "meet", i).labels for i in range(400))}
    assert len(met) == len(CLASSES) * (len(CLASSES) - 1) // 2


def test_sizes_span_a_factor_of_three() -> None:
    radii = [place[2] for i in range(400) for place in _layout(drawing.Draw(i), 1 + i % 4, _RADII[1 + i % 4])]
    assert min(radii) >= 14
    assert max(radii) <= 42
    assert max(radii) / min(radii) > 2.8


@given(st.integers(0, 2**30), st.integers(1, MAX_INSTANCES))
@FEW
def test_layout_keeps_instances_apart_and_inside(key: int, n: int) -> None:
    places = _layout(drawing.Draw(key), n, _RADII[n])
    assert len(places) == n
    for i, (x, y, r) in enumerate(places):
        assert 0.85 * r <= min(x, y)
        assert max(x, y) <= SIZE - 0.85 * r
        for p, q, s in places[:i]:
            assert np.hypot(x - p, y - q) >= 0.919 * (r + s)


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_a_shape_fills_its_disc_and_shows_texture_without_colour(label: int) -> None:
    v, u = np.meshgrid(*(np.linspace(-1.2, 1.2, 240, dtype=np.float32),) * 2, indexing="ij")
    shape = shapes.SHAPES[CLASSES[label]].draw
    for a, b in ((0.0, 0.0), (0.3, 0.9), (0.99, 0.99)):
        paint = shape(u, v, a, b)
        assert paint.dtype == np.uint8
        radius = np.sqrt(u * u + v * v)[paint > 0]
        assert 0.8 < radius.max() < 1.08
        shares = np.bincount(paint[paint > 0], minlength=6) / (paint > 0).sum()
        assert shares[drawing.MAIN] > 0.1
        assert shares[drawing.SECOND] > 0.05
    for i in range(50):
        palette = shapes.palette(drawing.Draw("colours", i), CLASSES[label])
        grey = palette[:, :3] @ np.array([0.299, 0.587, 0.114], np.float32)
        assert abs(grey[drawing.MAIN] - grey[drawing.SECOND]) > 0.1


def test_shapes_differ_from_each_other_without_colour() -> None:
    v, u = np.meshgrid(*(np.linspace(-1, 1, 100, dtype=np.float32),) * 2, indexing="ij")
    drawings = [shape(u, v, 0.5, 0.4) > 0 for shape, *_ in shapes.SHAPES.values()]
    for i, first in enumerate(drawings):
        for second in drawings[:i]:
            assert (first & second).sum() / (first | second).sum() < 0.85


@pytest.mark.parametrize("index", [-1, -40])
def test_negative_index_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"got {index}"):
        draw(0, "test", index)
    with pytest.raises(ValueError, match=f"got {index}"):
        pair(0, "test", index)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="label from 0 to 9, got 10"):
        draw(0, "test", 0, label=10)
    with pytest.raises(ValueError, match="0 to 4 instances, got 5"):
        draw(0, "test", 0, instances=5)
    with pytest.raises(ValueError, match="two different classes, got 3 twice"):
        pair(0, "test", 0, labels=(3, 3))
