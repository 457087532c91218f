"""Profiles: an experiment from photographs to figures, as a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from gradcampp.errors import InputError, listed

BUILT_IN = ("mini", "sample")


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
        raise InputError(f"no profile '{name}': expected {' or '.join(BUILT_IN)}, or a TOML file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"cannot read the profile {name}: {error}") from None
    known = [field.name for field in fields(Profile)]
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"profile {name}: unknown key {listed(unknown)}; expected some of {', '.join(known)}")
    return replace(Profile(), **{key: _checked(name, key, value) for key, value in content.items()})


def _checked(profile: str, key: str, value: Any) -> Any:
    """A value of the type that its field has."""
    kind = str(get_type_hints(Profile)[key])
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
    return value
