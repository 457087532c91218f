"""Profiles as TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradcampp.errors import InputError
from gradcampp.profiles import BUILT_IN, Profile, load


def test_the_built_in_profiles_load() -> None:
    assert load("mini") == Profile(model="mini", scenes=1000, threshold=0.5, seed=0)
    assert load("sample").data == Path("photographs")
    assert set(BUILT_IN) == {"mini", "sample"}


def test_a_file_may_say_everything(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'model = "net:make"\nweights = "w.pth"\nlayer = "body"\nclasses = "names.txt"\nresize = 20\ncrop = 16\n'
        "mean = [0, 0, 0.5]\n"
        'std = [1, 1, 1]\ndata = "photos"\nthreshold = 0.25\nlimit = 9\nseed = 3\n'
        'photograph = "a.png"\nexplain = ["cat", "dog"]\nprecision = "bf16"\n'
    )
    assert load(str(path)) == Profile(
        "net:make", "w.pth", "body", Path("names.txt"), 20, 16, (0, 0, 0.5), (1, 1, 1), Path("photos"), 1000, 0.25, 9, 3,
        Path("a.png"), ("cat", "dog"), "bf16",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = 3", "model = 3 is a int"),
        ("limit = true", "limit = True is a bool"),
        ('mean = "grey"', "mean = 'grey' is a str"),
        ("colour = 1", "unknown key colour; expected some of model, weights"),
        ("model = ", "cannot read the profile"),
    ],
)
def test_wrong_profiles_are_explained(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        load(str(tmp_path / "p.toml"))


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(InputError, match="no profile 'paper': expected mini or sample, or a TOML file"):
        load("paper")
