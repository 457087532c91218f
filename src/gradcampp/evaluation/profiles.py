"""Profiles: an experiment from photographs to figures, as a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StrictFloat, StrictInt, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from gradcampp.errors import InputError, listed
from gradcampp.evaluation.experiment import Experiment, experiment_of
from gradcampp.evaluation.folders import Order, Photograph, choose, list_photographs
from gradcampp.networks.capture import Network, Precision
from gradcampp.networks.load import load as load_network
from gradcampp.networks.preprocessing import Fit
from gradcampp.networks.scores import Score

BUILT_IN = ("mini", "photographs", "paper", "paper-keras")
DOWNLOADABLE = ("weights", "data", "photograph")  # keys that a download can fill
MINI = "mini, which knows ten drawn classes only; --model names one for photographs"
NOT_CHOSEN = f"no --model was given, so this is {MINI}"
TABLE = ConfigDict(extra="forbid")
COUNT = Field(ge=1, strict=True, description="a whole number from 1 up")
Count = Annotated[int, COUNT]
SIZE = Field(description="a whole number from 1 up, or two of them, height and width")
SEED = Field(ge=0, lt=2**63, strict=True, description="a whole number from 0 up to 2^63 - 1")
FRACTION = Field(ge=0, lt=1, strict=True, description="a number from 0 up to but not including 1")
PATH = Field(description="a path")
YES_OR_NO = Field(strict=True, description="true or false")


@dataclass(frozen=True, config=TABLE)
class Download:
    """A file on the network, a table ``[download.KEY]``; in ``folder`` of an archive are the class folders 0 to classes - 1."""

    address: str = Field(pattern=r"^https?://.+/\w[\w.+-]*$", description="an address that ends in the name of a file")
    size: StrictInt = Field(gt=0, description="a size in bytes")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="a sha256 of 64 hexadecimal digits")
    folder: str | None = None
    classes: StrictInt = Field(default=0, ge=0)
    images_per_class: StrictInt = Field(default=0, ge=0)
    md5: str | None = Field(default=None, pattern="^[0-9a-f]{32}$", description="an md5 of 32 hexadecimal digits")

    @property
    def file(self) -> str:
        """The name of the file in the cache."""
        return self.address.rsplit("/", 1)[-1]

    @property
    def checksum(self) -> tuple[str, str]:
        """Kind and value of the checksum; MD5 where its publisher states no SHA-256."""
        return ("sha256", self.sha256) if self.sha256 else ("md5", str(self.md5))


@dataclass(frozen=True, config=TABLE)
class Expected:
    """The table ``[expected]``: accuracies in [0, 1] that others measured on so many images with the weights of this SHA-256.

    The label of ``over_threshold`` images scores over the threshold. What nobody has measured is None; so are weights whose
    SHA-256 nobody states.
    """

    images: StrictInt
    threshold: StrictFloat
    over_threshold: StrictInt
    weights: str | None = None
    top1: StrictFloat | None = None
    top5: StrictFloat | None = None


@dataclass(frozen=True, config=TABLE)
class Profile:
    """An experiment for ``gradcampp reproduce``; each field is a key of the TOML file and an option of the command line.

    Attributes:
        model, weights, layer, layout, output, score, classes, resize, crop, mean, std, interpolation, fit, precision: as in
            :func:`gradcampp.networks.load.load`; crop may be a table of height and width.
        data: folder of class folders; None draws so many generated scenes instead.
        labels, label_order: of the data, as in :func:`gradcampp.evaluation.folders.list_photographs`.
        threshold: score over which an image is explained, in [0, 1).
        limit: number of photographs: the first, or with a seed a random sample.
        seed: of that sample, of random weights and of the scenes.
        photograph: the picture of Figures 1, 2, 3 and 5, in which Figure 2 explains some classes; None takes one of the data.
        controls: score the maps that check the metric itself too; twice as many passes.
        download: files on the network, by the key that each fills where it is None.
        source: the name or file that the profile was loaded from; no key.
    """

    model: str = "mini"
    weights: str | None = None
    layer: str | None = None
    classes: Annotated[Path | None, PATH] = None
    resize: Annotated[int | None, COUNT] = None
    crop: Annotated[Count | tuple[Count, Count] | None, SIZE] = None
    mean: tuple[StrictFloat, ...] | None = None
    std: tuple[StrictFloat, ...] | None = None
    data: Annotated[Path | None, PATH] = None
    scenes: Annotated[int, COUNT] = 1000
    threshold: Annotated[float, FRACTION] = 0.5
    limit: Annotated[int | None, COUNT] = None
    seed: Annotated[int | None, SEED] = None
    photograph: Annotated[Path | None, PATH] = None
    explain: tuple[str, ...] = ()
    controls: Annotated[bool, YES_OR_NO] = False
    precision: Precision = "float32"
    interpolation: str | None = None
    fit: Fit | None = None
    labels: Annotated[Path | None, PATH] = None
    label_order: Order | None = None
    score: Score = "softmax"
    download: Mapping[str, Download] = field(default_factory=dict)
    expected: Expected | None = None
    layout: str | None = None
    output: str | int | None = None
    source: str = field(default="", compare=False)

    @field_validator("download", mode="wrap")
    @classmethod
    def _downloads(cls, tables: Any, read: Callable[[Any], dict[str, Download]]) -> dict[str, Download]:
        if not isinstance(tables, Mapping) or not tables.keys() <= set(DOWNLOADABLE):
            raise ValueError(f"tables [download.{'|'.join(DOWNLOADABLE)}]")
        downloads = read(tables)
        for key, wanted in downloads.items():
            given = [wanted.folder is not None, wanted.classes > 0, wanted.images_per_class > 0]
            if given != [key == "data"] * 3 or not re.fullmatch(r"\w[\w.+-]*", wanted.folder or key):
                raise ValueError("folder, classes and images_per_class for data, and for data only")
            if (wanted.sha256 is None) == (wanted.md5 is None):
                raise ValueError("one checksum, sha256 or md5")
        return downloads


def load(name: str) -> Profile:
    """A profile by its name or file.

    Raises:
        InputError: if there is no such profile, or it is not TOML, or it has unknown keys or wrong types.
    """
    source = files("gradcampp").joinpath("resources", f"{name}.toml") if name in BUILT_IN else Path(name)
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise InputError(f"cannot read the profile {name}: no file")
    try:
        content = tomllib.loads(source.read_text("utf-8"))
        if "source" in content:
            raise InputError(f"profile {name}: it has the unknown key source")
        return Profile(**content, source=name)
    except FileNotFoundError:
        raise InputError(f"no profile '{name}': expected {', '.join(BUILT_IN)} or a TOML file") from None
    except ValidationError as error:
        raise InputError(f"profile {name}: {_in_one_line(error)}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the profile {name}: {error}") from None


def override(profile: Profile, options: Mapping[str, Any]) -> Profile:
    """A profile with other values for some of its keys; where an option is None, the profile's own stays.

    Raises:
        InputError: if a value is not what the key takes; the line names the option.
    """
    try:
        return replace(profile, **{key: value for key, value in options.items() if value is not None})
    except ValidationError as error:
        raise InputError(f"option --{_in_one_line(error)}") from None


def network(profile: Profile) -> Network:
    """The network of a profile whose downloads are in the cache, as :func:`gradcampp.evaluation.download.in_cache` leaves it.

    Raises:
        InputError: if the model, its weights, layer, preprocessing or class names do not fit.
    """
    keys = (
        "model", "layer", "layout", "output", "score", "weights", "classes", "resize", "crop", "mean", "std", "interpolation",
        "fit", "precision",
    )  # fmt: skip
    return load_network(seed=profile.seed or 0, **{key: getattr(profile, key) for key in keys})


def photographs(profile: Profile, folder: Path, network: Network) -> list[Photograph]:
    """The photographs of a profile in its data folder, or in that of its scenes, with their labels.

    Raises:
        InputError: as :func:`gradcampp.evaluation.folders.list_photographs`.
    """
    if not folder.is_dir() and (hint := missing_data(profile)):
        raise InputError(f"data {folder}: no such folder; {hint}")
    try:
        found = list_photographs(folder, network.classes, profile.label_order, profile.labels)
    except InputError as error:
        raise InputError(f"{error}; the network is {MINI}" if profile.model == "mini" else str(error)) from None
    return choose(found, profile.limit, profile.seed)


def missing_data(profile: Profile) -> str:
    """Where the photographs of a built-in profile come from, where they are not there and no download brings them."""
    if profile.source != "photographs" or profile.data is None or profile.data.is_dir():
        return ""
    return (
        f"python -m scripts.photographs --out {profile.data}, in the repository, fetches them (109 MB from "
        "github.com/EliSchwartz/imagenet-sample-images); --data DIR takes your own"
    )


def experiment(profile: Profile, network: Network) -> Experiment:
    """Everything in a profile, and in its network, that decides the numbers of a run."""
    return experiment_of(network, profile.threshold, profile.limit, profile.seed, profile.controls)


def name(profile: str) -> str:
    """The name of a profile, or that of its file without the ending; its folder below ``runs`` is called so."""
    return profile if profile in BUILT_IN else Path(profile).stem


def _in_one_line(error: ValidationError) -> str:
    """The first problem of a profile: where it is, what was found, what was expected."""
    first, *_ = problems = error.errors()
    *table, key = map(str, first["loc"][:1] if first["loc"][:1] == ("crop",) else first["loc"])  # without which of its forms
    where, found, kind = ".".join([*table, key]), first["input"], first["type"]
    if kind in ("missing", "unexpected_keyword_argument"):
        same = listed([str(each["loc"][-1]) for each in problems if each["type"] == kind and [*each["loc"][:-1]] == table])
        says = f"lacks {same}" if kind == "missing" else f"has the unknown key {same}"
        return f"{'table ' if table else 'it'}{'.'.join(table)} {says}; expected some of {', '.join(_keys(*table))}"
    if kind in ("dataclass_type", "value_error"):
        expected = first["ctx"].get("error") or f"a table of {', '.join(_keys(*table, key))}"
        return f"{where} is {found!r}; expected {expected}"
    of_a_type = f" is a {type(found).__name__}" if kind.endswith("_type") else ""
    return f"{where} = {found!r}{of_a_type}; expected {_keys(*table).get(key) or first['msg'].removeprefix('Input should be ')}"


def _keys(*table: str) -> dict[str, str | None]:
    """The keys of a table of the TOML file, with a description where their types do not say it all."""
    kind: Any = Expected if table == ("expected",) else Download if table else Profile
    return {key: known.description for key, known in kind.__pydantic_fields__.items() if key != "source"}
