"""Profiles as TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradcampp.errors import InputError
from gradcampp.evaluation.profiles import BUILT_IN, Download, Expected, Profile, load, override
from gradcampp.networks.classes import find, imagenet


def test_the_built_in_profiles_load() -> None:
    assert load("mini") == Profile(model="mini", scenes=1000, threshold=0.5, controls=True, seed=0)
    photographs = Profile("efficientnet_lite0", layer="relu", data=Path("imagenet-sample-images"), threshold=0.5, controls=True)
    assert load("photographs") == photographs
    assert load("paper").controls
    assert set(BUILT_IN) == {"mini", "photographs", "paper", "paper-keras"}


def test_a_file_may_say_everything(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'model = "net:make"\nweights = "w.pth"\nlayer = "body"\nclasses = "names.txt"\nresize = 20\ncrop = 16\n'
        "mean = [0, 0, 0.5]\n"
        'std = [1, 1, 1]\ndata = "photos"\nthreshold = 0.25\nlimit = 9\nseed = 3\n'
        'photograph = "a.png"\nexplain = ["cat", "dog"]\ncontrols = true\nprecision = "tf32"\n'
    )
    assert load(str(path)) == Profile(
        "net:make", "w.pth", "body", Path("names.txt"), 20, 16, (0, 0, 0.5), (1, 1, 1), Path("photos"), 1000, 0.25, 9, 3,
        Path("a.png"), ("cat", "dog"), True, "tf32",
    )  # fmt: skip


FILE = f'[download.weights]\naddress = "http://host/w.pth"\nsize = 1\nsha256 = "{"a" * 64}"\n'


def test_a_profile_says_where_its_files_come_from_and_what_to_expect(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    known = 'weights = "w"\nimages = 9\ntop1 = 0.5\ntop5 = 1\nthreshold = 0.5\nover_threshold = 3\n'
    archive = FILE.replace("weights", "data") + 'folder = "photos"\nclasses = 3\nimages_per_class = 3\n'
    path.write_text(f'model = "vgg16"\n{FILE}{archive}[expected]\n{known}')
    profile = load(str(path))
    assert profile.download["weights"] == Download("http://host/w.pth", 1, "a" * 64)
    assert profile.download["weights"].file == "w.pth"
    assert profile.download["data"] == Download("http://host/w.pth", 1, "a" * 64, "photos", 3, 3)
    assert profile.expected == Expected(9, 0.5, 3, "w", 0.5, 1)
    assert profile.source == str(path)


def test_the_paper_profile_downloads_what_the_paper_used() -> None:
    profile = load("paper")
    assert (profile.model, profile.layer, profile.threshold) == ("vgg16", "features.29", 0.5)
    files = {key: (wanted.file, wanted.size) for key, wanted in profile.download.items()}
    assert files == {
        "weights": ("vgg16-397923af.pth", 553_433_881),
        "data": ("imagenetv2-matched-frequency.tar.gz", 1_264_079_360),
        "photograph": ("dog-and-cat.jpg", 93_553),
    }
    assert all(wanted.address.startswith("https://") for wanted in profile.download.values())
    assert str(profile.download["weights"].sha256).startswith("397923af")  # torchvision names files after their hash
    assert [find(imagenet(), name) for name in profile.explain] == [282, 235]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = 3", "model = 3 is a int"),
        ("limit = true", "limit = True is a bool"),
        ('mean = "grey"', "mean = 'grey' is a str"),
        ("data = 3", "data = 3 is a int; expected a path"),
        ('std = [1, "a"]', "std.1 = 'a' is a str; expected a valid number"),
        ('precision = "half"', "precision = 'half'; expected 'float32' or 'tf32'"),
        ('source = "mini"', "unknown key source"),
        ("controls = 1", "controls = 1 is a int; expected true or false"),
        ("colour = 1", "unknown key colour; expected some of model, weights"),
        ("model = ", "cannot read the profile"),
        ('download = "x"', "download is 'x'; expected tables"),
        ("[download.model]", "expected tables .download.weights.data.photograph"),
        ("download.weights = 3", "download.weights is 3; expected a table of address, size, sha256"),
        ("[download.weights]\nsize = 1", "table download.weights lacks address"),
        (FILE + 'sha1 = "a"', "table download.weights has the unknown key sha1"),
        (FILE + 'md5 = "a"', "expected an md5 of 32 hexadecimal digits"),
        (FILE + f'md5 = "{"a" * 32}"', "expected one checksum, sha256 or md5"),
        (FILE.partition("sha256")[0], "expected one checksum, sha256 or md5"),
        (FILE.replace("size = 1", 'size = "1"'), "size = '1' is a str"),
        (FILE.replace("size = 1", "size = 0"), "expected a size in bytes"),
        (FILE.replace("http", "ftp"), "expected an address that ends in the name of a file"),
        (FILE.replace("/w.pth", "/w/"), "expected an address that ends in the name of a file"),
        (FILE.replace("/w.pth", "/.."), "expected an address that ends in the name of a file"),
        (FILE.replace("aa", "aA", 1), "expected a sha256 of 64 hexadecimal digits"),
        (FILE + 'folder = "f"', "for data, and for data only"),
        (FILE.replace("weights", "data"), "expected folder, classes and images_per_class for data"),
        (FILE.replace("weights", "data") + 'folder = "../f"\nclasses = 1\nimages_per_class = 1', "expected folder, classes"),
        ("expected = 1", "expected is 1; expected a table"),
        ("[expected]\nimages = 1", "table expected lacks threshold, over_threshold"),
    ],
)
def test_wrong_profiles_are_explained(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        load(str(tmp_path / "p.toml"))


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(InputError, match="no profile 'absent': expected mini, photographs, paper, paper-keras or a TOML file"):
        load("absent")


@pytest.mark.parametrize(
    "line", ["scenes = 0", "limit = 0", "resize = 0", "crop = -3", "seed = -1", "threshold = 1.0", "threshold = nan"]
)
def test_a_profile_is_refused_where_the_command_line_refuses_its_value(tmp_path: Path, line: str) -> None:
    profile = tmp_path / "own.toml"
    profile.write_text(line, "utf-8")
    with pytest.raises(InputError, match=f"own.toml: {line}; expected a"):
        load(str(profile))


def test_options_take_the_place_of_keys_and_are_checked_as_they_are() -> None:
    profile = load("mini")
    changed = override(profile, {"threshold": 0.25, "mean": [0, 0, 0.5], "data": Path("photos"), "limit": None})
    assert changed == Profile(scenes=1000, seed=0, threshold=0.25, mean=(0, 0, 0.5), data=Path("photos"), controls=True)
    assert (changed.source, profile.threshold) == ("mini", 0.5)
    for key, value, expected in (("threshold", 1.0, "a number from 0 up to"), ("limit", 0, "a whole number from 1 up")):
        with pytest.raises(InputError, match=f"^option --{key} = {value}; expected {expected}"):
            override(profile, {key: value})


def test_an_oblong_crop_is_two_numbers(tmp_path: Path) -> None:
    profile = tmp_path / "own.toml"
    profile.write_text('crop = [224, 320]\nfit = "squash"\ninterpolation = "bicubic"\nlabels = "l.csv"\nlabel_order = "folder"')
    loaded = load(str(profile))
    assert (loaded.crop, loaded.fit, loaded.label_order) == ((224, 320), "squash", "folder")
    for line in ("crop = [0, 3]", "crop = [1, 2, 3]", "crop = 2.5"):
        profile.write_text(line)
        with pytest.raises(InputError, match=r"own.toml: crop = .*; expected a whole number from 1 up, or two of them, height"):
            load(str(profile))
