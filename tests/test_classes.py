"""The names that people give to classes: ImageNet's list, one's own list, and folders of photographs."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gradcampp.errors import InputError
from gradcampp.networks.classes import Classes, find, from_file, imagenet, named, numbered, of_folder
from tests.loops import PROPERTY

IMAGENET = cache(imagenet)
ANIMALS = named(["cat", "dog", "guinea pig"])


def test_imagenet_has_1000_classes_in_the_order_of_their_wordnet_ids() -> None:
    classes = imagenet()
    assert len(classes) == len(classes.names) == len(classes.synonyms) == len(set(classes.names)) == 1000
    assert all(re.fullmatch(r"n\d{8}", identifier) for identifier in classes.wordnet)
    assert list(classes.wordnet) == sorted(set(classes.wordnet))
    assert len(classes.wordnet) == 1000


@pytest.mark.parametrize(
    ("index", "identifier", "name"),
    [
        (0, "n01440764", "tench"),
        (1, "n01443537", "goldfish"),
        (134, "n02012849", "crane bird"),
        (207, "n02099601", "golden retriever"),
        (281, "n02123045", "tabby"),
        (517, "n03126707", "crane"),
        (999, "n15075141", "toilet tissue"),
    ],
)
def test_imagenet_classes_stand_at_their_known_places(index: int, identifier: str, name: str) -> None:
    assert (IMAGENET().wordnet[index], IMAGENET().names[index]) == (identifier, name)


def test_every_display_name_is_among_the_synonyms() -> None:
    assert all(name in synonyms for name, synonyms in zip(IMAGENET().names, IMAGENET().synonyms, strict=True))


@pytest.mark.parametrize("text", ["tabby cat", "tabby", "Tabby_Cat", "  TABBY-cat ", "n02123045", "281", "0281"])
def test_a_class_is_found_by_name_synonym_wordnet_id_and_index(text: str) -> None:
    assert find(IMAGENET(), text) == 281


def test_each_index_and_wordnet_id_finds_its_class() -> None:
    for index, identifier in enumerate(IMAGENET().wordnet):
        assert find(IMAGENET(), str(index)) == find(IMAGENET(), identifier) == of_folder(IMAGENET(), identifier) == index


@pytest.mark.parametrize(
    ("text", "meant"),
    [("crane", "crane bird (134), crane (517)"), ("maillot", "maillot (638), maillot tank suit (639)")],
)
def test_an_ambiguous_name_is_refused_with_all_that_it_can_mean(text: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"'{text}' is ambiguous: {re.escape(meant)}; name one of them by its index"):
        find(IMAGENET(), text)


@pytest.mark.parametrize(
    ("text", "near"), [("tabbi", "tabby (281)"), ("goldfihs", "goldfish (1)"), ("retriever", "golden retriever (207)")]
)
def test_an_unknown_name_is_refused_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(InputError, match=rf"no class '{text}'; the nearest: .*{re.escape(near)}"):
        find(IMAGENET(), text)


@pytest.mark.parametrize("text", ["", " ", "qqqqqqqq", "n00000000", "(", "-1", "1.5", "²"])
def test_what_resembles_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"no class '{text}'; the nearest: ")):
        find(ANIMALS, text)


@pytest.mark.parametrize("function", [find, of_folder])
def test_an_index_out_of_range_is_refused_with_the_range(function: Callable[[Classes, str], int]) -> None:
    with pytest.raises(InputError, match="class 3 is out of range: the network has 3 classes, 0 to 2"):
        function(ANIMALS, "3")
    with pytest.raises(InputError, match="class 1000 is out of range: the network has 1000 classes, 0 to 999"):
        function(IMAGENET(), "1000")


@pytest.mark.parametrize(
    ("folder", "index"),
    [("crane", 517), ("maillot", 638), ("10", 10), ("2", 2), ("002", 2), ("tabby_cat", 281), ("crane bird", 134)],
)
def test_a_folder_is_an_index_or_a_display_name_before_it_is_a_synonym(folder: str, index: int) -> None:
    assert of_folder(IMAGENET(), folder) == index


def test_folders_named_after_display_names_hold_their_class() -> None:
    names = [name for name in IMAGENET().names if name.casefold() != "cardigan"]
    assert [IMAGENET().names[of_folder(IMAGENET(), name)] for name in names] == names


def test_a_folder_named_exactly_as_a_class_is_that_class_or_refused() -> None:
    assert of_folder(IMAGENET(), "Cardigan") == 264


def test_an_unknown_folder_is_refused_by_its_name() -> None:
    with pytest.raises(InputError, match="class folder 'hamster': no class 'hamster'"):
        of_folder(ANIMALS, "hamster")


def test_a_folder_that_two_synonyms_share_is_refused() -> None:
    classes = Classes(("a", "b"), (("a", "x"), ("b", "x")))
    with pytest.raises(InputError, match="class folder 'x': class 'x' is ambiguous"):
        of_folder(classes, "x")


def test_named_classes_are_found_and_labelled() -> None:
    assert [find(ANIMALS, name) for name in ("Cat", "dog", "guinea_pig", "1")] == [0, 1, 2, 1]
    assert ANIMALS.label(2) == "guinea pig (2)"
    assert ANIMALS.wordnet == ()


@pytest.mark.parametrize("names", [["cat", "cat"], ["cat", "dog", "CAT"], ["guinea pig", "guinea_pig"]])
def test_names_that_stand_twice_are_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match=f"class name '{names[-1]}' stands twice"):
        named(names)


def test_an_empty_name_is_refused_with_its_place() -> None:
    with pytest.raises(InputError, match="class 1 has an empty name"):
        named(["cat", "", "dog"])


def test_only_a_thousand_classes_are_taken_for_imagenet() -> None:
    assert numbered(1000) == IMAGENET()
    assert numbered(3).names == ("class 0", "class 1", "class 2")
    assert find(numbered(999), "class 7") == 7


def test_a_file_holds_a_name_a_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("  cat \nchien de garde\r\nmüsli\n", "utf-8")
    assert from_file(path).names == ("cat", "chien de garde", "müsli")


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"cat\n\ndog\n", "class 1 has an empty name"), (b"a\nA\n", "stands twice"), (b"\xff\xfe", "cannot read class names from")],
)
def test_an_unusable_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        from_file(path)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match=re.escape(f"cannot read class names from {path}")):
            from_file(path)


@PROPERTY
@given(st.sampled_from(ANIMALS.names), st.sampled_from([" ", "_", "-", " - "]), st.booleans(), st.sampled_from(["", " ", "__"]))
def test_any_spelling_of_a_name_finds_its_class(name: str, separator: str, capital: bool, margin: str) -> None:
    spelled = margin + (name.upper() if capital else name).replace(" ", separator) + margin
    assert find(ANIMALS, spelled) == of_folder(ANIMALS, spelled) == ANIMALS.names.index(name)


@PROPERTY
@given(st.text(st.characters(exclude_characters="012"), max_size=12))
def test_any_other_text_is_refused_in_one_error_that_repeats_it(text: str) -> None:
    assume(not re.fullmatch(r"[\s_-]*(cat|dog|guinea[\s_-]+pig)[\s_-]*", text.casefold()))
    with pytest.raises(InputError) as caught:
        find(ANIMALS, text)
    assert text in str(caught.value)
