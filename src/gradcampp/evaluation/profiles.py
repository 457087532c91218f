"""Profiles: an experiment from photographs to figures, as a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from gradcampp.errors import InputError, listed
from gradcampp.networks.capture import PRECISIONS, Network
from gradcampp.networks.load import load as load_network

BUILT_IN = ("mini", "sample", "paper")


LEAST = {"scenes": 1, "limit": 1, "resize": 1, "crop": 1, "seed": 0}  # of a key that counts something


DOWNLOADABLE = ("weights", "data", "photograph")  # keys that a download can fill


@dataclass(frozen=True)
class Download:
    """A file on the network that a profile needs: a table ``[download.KEY]`` of the TOML file.

    Attributes:
        address: http or https; its last part is the name of the file in the cache.
        size: in bytes.
        sha256: of the file, 64 hexadecimal digits.
        folder: of an archive, the folder in it that holds the class folders.
        classes, images_per_class: of an archive: its class folders are named 0 to classes - 1.
    """

    address: str
    size: int
    sha256: str
    folder: str | None = None
    classes: int = 0
    images_per_class: int = 0

    @property
    def file(self) -> str:
        """The name of the file in the cache."""
        return self.address.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Expected:
    """What others have measured with the same weights on the same photographs: the table ``[expected]``.

    Attributes:
        weights: SHA-256 of the weight file that was measured.
        images: number of photographs in the whole set.
        top1, top5: accuracy on the whole set, in [0, 1].
        threshold, over_threshold: so many images have a label that scores over the threshold.
    """

    weights: str
    images: int
    top1: float
    top5: float
    threshold: float
    over_threshold: int


@dataclass(frozen=True)
class Profile:
    """What ``gradcampp reproduce`` does; each field is a key of the TOML file and an option of the command line.

    Attributes:
        model, weights, layer, classes, resize, crop, mean, std: the network, as in ``gradcampp evaluate``.
        data: folder of class folders; None draws ``scenes`` generated scenes instead.
        scenes: number of generated scenes.
        threshold, limit, seed: as in ``gradcampp evaluate``; the seed is also that of the scenes.
        photograph: the picture of Figures 1, 2, 3 and 5; None chooses one from the data.
        explain: classes to explain in Figure 2.
        precision: of the network's arithmetic: ``float32``, ``tf32`` or ``bf16``.
        download: files on the network, by the key that each fills where it is None.
        expected: what is known of a run on the whole set.
        source: the name or file that the profile was loaded from; no key.
    """

    model: str = "mini"
    weights: str | None = None
    layer: str | None = None
    classes: Path | None = None
    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    data: Path | None = None
    scenes: int = 1000
    threshold: float = 0.5
    limit: int | None = None
    seed: int | None = None
    photograph: Path | None = None
    explain: tuple[str, ...] = ()
    precision: str = "float32"
    download: Mapping[str, Download] = field(default_factory=dict)
    expected: Expected | None = None
    source: str = field(default="", compare=False)


def load(name: str) -> Profile:
    """A profile by its name or file.

    Raises:
        InputError: if there is no such profile, or it is not TOML, or it has unknown keys or wrong types.
    """
    built_in = files("gradcampp").joinpath("resources", f"{name}.toml")
    source = built_in if name in BUILT_IN else Path(name)
    try:
        content = tomllib.loads(source.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"no profile '{name}': expected {', '.join(BUILT_IN)} or a TOML file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the profile {name}: {error}") from None
    downloads = content.pop("download", {})
    expected = content.pop("expected", None)
    known = [each.name for each in fields(Profile) if each.name not in ("download", "expected", "source")]
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"profile {name}: unknown key {listed(unknown)}; expected some of {', '.join(known)}")
    return replace(
        Profile(),
        **{key: _checked(name, Profile, key, value) for key, value in content.items()},
        download=_downloads(name, downloads),
        expected=None if expected is None else Expected(**_table(name, "expected", Expected, expected)),
        source=name,
    )


def network(profile: Profile) -> Network:
    """The network of a profile, ready to be asked.

    Args:
        profile: its downloads in the cache, as :func:`gradcampp.evaluation.download.in_cache` leaves it.

    Raises:
        InputError: if the model, its weights, layer, preprocessing or class names do not fit.
    """
    if profile.precision not in PRECISIONS:
        raise InputError(f"precision '{profile.precision}': expected {', '.join(PRECISIONS)}")
    return load_network(
        profile.model,
        profile.layer,
        weights=profile.weights,
        seed=profile.seed or 0,
        classes=profile.classes,
        resize=profile.resize,
        crop=profile.crop,
        mean=profile.mean,
        std=profile.std,
        precision=profile.precision,
    )


def name(profile: str) -> str:
    """What a profile is called, and its folder below ``runs``: the name, or that of the file without its ending."""
    return profile if profile in BUILT_IN else Path(profile).stem


def _downloads(profile: str, tables: Any) -> dict[str, Download]:
    """The tables ``[download.KEY]`` with everything that a download relies on checked."""
    if not isinstance(tables, dict) or not tables.keys() <= set(DOWNLOADABLE):
        raise InputError(f"profile {profile}: download is {tables!r}; expected tables [download.{'|'.join(DOWNLOADABLE)}]")
    found = {}
    for key, table in tables.items():
        wanted = Download(**_table(profile, f"download.{key}", Download, table))
        archive = (wanted.folder or "", wanted.classes, wanted.images_per_class)
        for good, what in (
            (re.fullmatch(r"https?://.+/\w[\w.+-]*", wanted.address), "an address that ends in the name of a file"),
            (wanted.size > 0, "a size in bytes"),
            (re.fullmatch(r"[0-9a-f]{64}", wanted.sha256), "a sha256 of 64 hexadecimal digits"),
            (
                re.fullmatch(r"\w[\w.+-]*", archive[0]) and min(archive[1:]) > 0 if key == "data" else archive == ("", 0, 0),
                "folder, classes and images_per_class for data, and for data only",
            ),
        ):
            if not good:
                raise InputError(f"profile {profile}: download.{key} is {table}; expected {what}")
        found[key] = wanted
    return found


def _table(profile: str, name: str, kind: type, content: Any) -> dict[str, Any]:
    """The checked values of a table that becomes a dataclass."""
    known = {each.name: each.default is MISSING for each in fields(kind)}
    if not isinstance(content, dict):
        raise InputError(f"profile {profile}: {name} is {content!r}; expected a table of {', '.join(known)}")
    unknown = [key for key in content if key not in known]
    missing = [key for key, required in known.items() if required and key not in content]
    if unknown or missing:
        says = f"lacks {listed(missing)}" if missing else f"has the unknown key {listed(unknown)}"
        raise InputError(f"profile {profile}: table {name} {says}; expected {', '.join(known)}")
    return {key: _checked(profile, kind, key, value) for key, value in content.items()}


def _checked(profile: str, owner: type, key: str, value: Any) -> Any:
    """A value of the type that its field has."""
    kind = str(get_type_hints(owner)[key])
    if "Path" in kind and isinstance(value, str):
        return Path(value)
    if (
        "tuple" in kind
        and isinstance(value, list)
        and all(isinstance(item, str if "str" in kind else int | float) for item in value)
    ):
        return tuple(value)
    plain = (int, float) if "float" in kind else int if "int" in kind else str
    if "Path" in kind or "tuple" in kind or isinstance(value, bool) or not isinstance(value, plain):
        raise InputError(f"profile {profile}: {key} = {value!r} is a {type(value).__name__}; expected {kind}")
    if key in LEAST and isinstance(value, int) and value < LEAST[key]:
        raise InputError(f"profile {profile}: {key} = {value!r}; expected a whole number from {LEAST[key]} up")
    if key == "threshold" and not (isinstance(value, int | float) and 0 <= value < 1):
        raise InputError(f"profile {profile}: threshold = {value!r}; expected a number from 0 up to but not including 1")
    return value
