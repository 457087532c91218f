"""Which photographs a data folder holds, and what they are labelled."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gradcampp.errors import InputError, Notice
from gradcampp.evaluation.folders import Photograph, at_chance, choose, endings, list_photographs, read_labels
from gradcampp.networks.classes import imagenet, named, numbered
from tests.conftest import photograph


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_integer_folders_are_numbers_not_texts_and_rows_are_sorted_by_path(tmp_path: Path) -> None:
    root = make(
        tmp_path, "10/a.jpg", "2/b.JPEG", "2/a.png", "0/z/deep.webp", "2/notes.txt", "2/.hidden.jpg", ".git/x.jpg", "loose.jpg"
    )
    with pytest.warns(Notice):
        found = list_photographs(root, numbered(11))
    assert [(item.image, item.label) for item in found] == [
        ("0/z/deep.webp", 0),
        ("10/a.jpg", 10),
        ("2/a.png", 2),
        ("2/b.JPEG", 2),
    ]


def test_a_link_to_its_own_folder_is_followed_once(tmp_path: Path) -> None:
    root = make(tmp_path, "0/a.jpg")
    (root / "0" / "again").symlink_to(root / "0")
    (root / "0" / "more").symlink_to(root / "0")
    assert [item.image for item in list_photographs(root, numbered(3))] == ["0/a.jpg"]


def test_a_name_that_is_not_utf8_is_refused_before_any_work(tmp_path: Path) -> None:
    root = make(tmp_path, "0/a.jpg")
    (Path(os.fsdecode(bytes(root / "0") + b"/caf\xe9.jpg"))).touch()
    with pytest.raises(InputError, match="is not UTF-8; rename it"):
        list_photographs(root, numbered(3))


def test_folders_may_be_wordnet_ids_or_names(tmp_path: Path) -> None:
    found = list_photographs(make(tmp_path, "n02123045/a.jpg", "golden_retriever/b.jpg", "7/c.jpg"), imagenet())
    assert {item.image: item.label for item in found} == {"n02123045/a.jpg": 281, "golden_retriever/b.jpg": 207, "7/c.jpg": 7}


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["3/a.jpg"], "class folder '3': class 3 is out of range: the network has 3 classes, 0 to 2"),
        (["doog/a.jpg"], r"class folder 'doog': no class 'doog'; the nearest: dog \(1\)"),
        (["0/a.txt"], "no photographs in class folders"),
        ([], "no photographs in class folders"),
    ],
)
def test_wrong_folders_are_explained(tmp_path: Path, paths: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        list_photographs(make(tmp_path, *paths), named(["cat", "dog", "fish"]))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such folder"):
        list_photographs(tmp_path / "absent", numbered(3))


def test_a_limit_takes_the_first_and_with_a_seed_a_sample_in_order(folder: Callable[..., Path]) -> None:
    every = list_photographs(folder(), numbered(3))
    assert choose(every, 4, None) == every[:4]
    sample = choose(every, 7, 1)
    assert len(set(sample)) == 7
    assert sample == sorted(sample, key=lambda item: item.image) == choose(every, 7, 1)
    assert len({tuple(choose(every, 7, seed)) for seed in range(5)}) > 1
    assert choose(every, 99, 1) == every == choose(every, None, 1)


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".AppleDouble"])
def test_hidden_folders_inside_a_class_folder_are_no_photographs(tmp_path: Path, hidden: str) -> None:
    root = make(tmp_path, "0/a.jpg", f"0/{hidden}/a-checkpoint.jpg", f"{hidden}/b.jpg", "0/._a.jpg")
    with pytest.warns(Notice, match=f"data {tmp_path}: 1 photographs; left out: 3 hidden$"):
        assert list_photographs(root, numbered(2)) == [Photograph("0/a.jpg", 0)]


def test_what_pillow_reads_is_taken_and_the_rest_is_counted(tmp_path: Path) -> None:
    root = make(tmp_path, "0/a.jfif", "0/b.AVIF", "0/c.jp2", "0/d.JPG", "0/e.tga", "0/notes.txt", "0/film.mpg", "0/more.txt")
    make(root, "0/f.HEIC", "0/README", "loose.jpg", "labels.csv", "1.png")
    (root / "0" / "lost.png").symlink_to(root / "nowhere.png")
    (root / "0" / "folder.png").mkdir()
    os.mkfifo(root / "0" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(os.path.relpath(root / "0" / "socket.png"))
        with pytest.warns(Notice) as said:
            found = list_photographs(root, numbered(2))
    assert [item.image for item in found] == ["0/a.jfif", "0/b.AVIF", "0/c.jp2", "0/d.JPG", "0/e.tga"]
    (line,) = (str(each.message) for each in said)
    parts = {"2 .txt", "1 .mpg", "1 .heic (pip install pillow-heif)", "1 without an ending", "2 in no class folder"}
    assert set(line.partition("left out: ")[2].split(", ")) == parts | {"3 broken links or pipes"}


def test_every_ending_that_is_taken_can_be_read(tmp_path: Path) -> None:
    known = endings()
    assert {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".jp2", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm"} <= known
    assert not known & {".pdf", ".h5", ".hdf", ".mpg", ".eps", ".txt", ".csv", ".npy"}
    for ending in (".jfif", ".avif", ".jp2", ".tga", ".webp"):
        photograph(1).save(tmp_path / f"a{ending}")
        with Image.open(tmp_path / f"a{ending}") as image:
            assert image.size == (40, 32)


def test_a_folder_of_data_sets_names_the_one_that_is_meant(tmp_path: Path) -> None:
    root = make(tmp_path, "train/cat/a.jpg", "val/cat/b.jpg", "test/cat/c.jpg")
    with pytest.raises(InputError, match=f"holds test, train, val, not class folders; did you mean {root / 'val'}[?]"):
        list_photographs(root, named(["cat", "dog"]))
    with pytest.raises(InputError, match=f"did you mean {root / 'a' / 'train'}[?]"):
        list_photographs(make(root / "a", "train/cat/a.jpg").resolve(), named(["cat", "dog"]))
    with pytest.raises(InputError, match=f"did you mean --data {root / 'b' / 'pets'}[?]"):
        list_photographs(make(root / "b", "pets/cat/a.jpg"), named(["cat", "dog"]))


def test_unknown_class_folders_name_the_options_that_help(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--classes FILE gives the names of the classes; --label-order folder counts"):
        list_photographs(make(tmp_path, "cat/a.jpg", "dog/b.jpg"), numbered(2))


def labels(found: list[Photograph]) -> dict[str, int]:
    return {item.image.split("/")[0]: item.label for item in found}


def test_the_order_of_imagefolder_is_that_of_texts(tmp_path: Path) -> None:
    names = [str(index) for index in range(12)]
    root = make(tmp_path, *(f"{name}/a.jpg" for name in names))
    with pytest.warns(Notice, match=r"read as class indices, 10 as class 10; 0, 1, 10, 11 and 8 more are folders 0, 1, 2, 3 to"):
        assert labels(list_photographs(root, numbered(12))) == {name: int(name) for name in names}
    assert labels(list_photographs(root, numbered(12), "index"))["10"] == 10  # said so, and no word
    assert labels(list_photographs(root, numbered(12), "folder")) == {name: place for place, name in enumerate(sorted(names))}


@pytest.mark.parametrize("names", [["0", "1", "2"], ["00", "01", "02"], ["cat", "dog", "fish"]])
def test_where_both_orders_are_the_same_there_is_no_word(tmp_path: Path, names: list[str]) -> None:
    root = make(tmp_path, *(f"{name}/a.jpg" for name in names))
    classes = named(names) if names[0] == "cat" else numbered(3)
    assert labels(list_photographs(root, classes)) == {name: place for place, name in enumerate(names)}
    assert list_photographs(root, classes, "folder") == list_photographs(root, classes, "index")


def test_some_of_many_numbers_have_a_word_and_imagenets_have_none(tmp_path: Path) -> None:
    root = make(tmp_path, "3/a.jpg", "25/b.jpg")
    with pytest.warns(Notice, match="folders of numbers are read as class indices"):
        assert labels(list_photographs(root, numbered(30))) == {"3": 3, "25": 25}
    assert labels(list_photographs(root, imagenet())) == {"3": 3, "25": 25}  # whose order is that of WordNet ids
    names = [str(index) for index in (0, 1, 10, 11, 2, 25, 3)]  # as class_to_idx of a checkpoint has them
    assert labels(list_photographs(root, named(names))) == {"3": 6, "25": 5}


def test_a_factory_without_class_names_takes_the_order_of_the_folders(tmp_path: Path) -> None:
    root = make(tmp_path, "dog/a.jpg", "cat/b.jpg", "owl/c.txt", ".git/x.jpg")
    with pytest.warns(Notice, match="left out: 1 hidden, 1 .txt"):
        assert labels(list_photographs(root, numbered(3), "folder")) == {"cat": 0, "dog": 1}  # an empty folder counts


@pytest.mark.parametrize(
    ("count", "names", "says"),
    [
        (4, None, "--label-order folder: .* has 3 class folders, and the network 4 classes; expected as many"),
        (3, ["dog", "cat", "owl"], "folder cat is number 0, and the network's class cat is 1; leave the option out"),
    ],
)
def test_an_order_that_cannot_be_is_refused(tmp_path: Path, count: int, names: list[str] | None, says: str) -> None:
    root = make(tmp_path, "dog/a.jpg", "cat/b.jpg", "owl/c.jpg")
    with pytest.raises(InputError, match=says):
        list_photographs(root, named(names) if names else numbered(count), "folder")


TABLES = {
    "commas": "a.jpg,0\nb.jpg,2\n",
    "a head": "image,label\na.jpg,0\nb.jpg,fish\n\n",
    "a tab": "a.jpg\tcat\nb.jpg\t2\n",
    "a space, as Caffe has it": "a.jpg 0\n./b.jpg 2\n",
    "a semicolon, from Windows": "\ufefffilename;class\r\na.jpg;0\r\nb.jpg;2\r\n",
    "another head": "photo,species\na.jpg,0\nb.jpg,fish\n",
    "quotes": '"a.jpg","cat"\n"b.jpg","fish"\n',
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_labels_of_a_flat_folder_come_from_a_table(tmp_path: Path, text: str) -> None:
    root = make(tmp_path / "flat", "a.jpg", "b.jpg")
    (tmp_path / "labels").write_bytes(text.encode())
    found = list_photographs(root, named(["cat", "dog", "fish"]), labels=tmp_path / "labels")
    assert found == [Photograph("a.jpg", 0), Photograph("b.jpg", 2)]


def test_photographs_without_a_row_are_counted_and_folders_may_be_in_the_table(tmp_path: Path) -> None:
    root = make(tmp_path / "flat", "x/a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "t.csv").write_text(f"x/a.jpg,n01440764\n{root.absolute()}/b.jpg,281\n")
    with pytest.warns(Notice, match=r"2 photographs; left out: 1 without a row in .*t.csv"):
        found = list_photographs(root, imagenet(), labels=tmp_path / "t.csv")
    assert found == [Photograph("b.jpg", 281), Photograph("x/a.jpg", 0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.jpg,0\nz.jpg,1\n", "z.jpg is no photograph in"),
        ("a.jpg,0\nb.jpg,3\n", "row 2: class 3 is out of range: the network has 3 classes, 0 to 2"),
        ("a.jpg,bird\n", "row 1: no class 'bird'"),
        ("a.jpg,0,1\n", "row 1: 3 columns; expected image,label"),
        ("a.jpg,0\na.jpg,1\n", "row 2: a.jpg has two labels, 0 and 1"),
        ("", "no photograph has a row in "),
        ("class,image\n0,a.jpg\n", "row 2: no class 'a.jpg'"),
    ],
)
def test_wrong_tables_are_explained(tmp_path: Path, text: str, says: str) -> None:
    root = make(tmp_path / "flat", "a.jpg", "b.jpg")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        list_photographs(root, named(["cat", "dog", "fish"]), labels=tmp_path / "t.csv")


def test_a_missing_table_a_pipe_and_a_binary_file_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, says in (("absent", "no such file"), ("pipe", "no such file"), ("binary", "cannot read labels")):
        with pytest.raises(InputError, match=says):
            read_labels(tmp_path / name, tmp_path, numbered(3))


def test_a_flat_folder_without_labels_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no photographs in class folders; .*the 2 beside them need --labels FILE"):
        list_photographs(make(tmp_path, "a.jpg", "b.jpg"), numbered(3))


@pytest.mark.parametrize(
    ("right", "images", "classes", "loud"),
    [
        (1, 1000, 1000, True),  # one in a thousand
        (0, 500, 3, True),  # every label wrong: an order that is mixed up
        (55, 100, 2, True),  # guessing does as well in 18 of 100 runs
        (70, 100, 2, False),  # in 4 of 100,000
        (8, 1000, 1000, False),  # eight times what guessing gives, in 1 of 100,000
        (9, 9, 2, False),  # nine right of nine: in 1 of 512
    ],
)
def test_an_accuracy_that_guessing_reaches_is_said_loudly(right: int, images: int, classes: int, loud: bool) -> None:
    manifest: dict[str, Any] = {"images": images, "top1": right / images, "experiment": {"weights": "abc"}}
    said = at_chance(manifest, classes)
    assert bool(said) is loud
    if loud:
        assert (
            f"WARNING: top-1 {right / images:.2%} of {images} images is no better than chance, {1 / classes:.2%}; check" in said
        )
    manifest["experiment"]["weights"] = "random (seed 0)"
    assert at_chance(manifest, classes) == ""


@pytest.mark.parametrize(("right", "images", "classes"), [(0, 6, 10), (0, 1, 1000), (6, 6, 2), (1, 9, 2)])
def test_a_few_images_cannot_tell(right: int, images: int, classes: int) -> None:
    said = at_chance({"images": images, "top1": right / images, "experiment": {"weights": "abc"}}, classes)
    assert said.startswith("cannot tell whether the network knows these classes, of which there are too few images: top-1 ")
    assert f"{right / images:.2%} of {images} images is no better than chance, {1 / classes:.2%}; check" in said
