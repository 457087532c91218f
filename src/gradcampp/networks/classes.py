"""The classes of a network, and how people name them: an index, a WordNet id, a name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from gradcampp.errors import InputError, listed


@dataclass(frozen=True)
class Classes:
    """The classes of a network in the order of its logits.

    Attributes:
        names: one display name a class, all different.
        synonyms: for each class, every name it is known by, the display name among them.
        wordnet: WordNet ids, or nothing where the classes are not ImageNet's.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    wordnet: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def label(self, index: int) -> str:
        """A class for people: ``tabby (281)``."""
        return f"{self.names[index]} ({index})"


def imagenet() -> Classes:
    """The 1,000 classes of ILSVRC 2012 with their WordNet ids and synonyms."""
    rows = files("gradcampp").joinpath("resources", "imagenet_classes.tsv").read_text("utf-8").splitlines()
    ids, names, lemmas = zip(*(row.split("\t") for row in rows), strict=True)
    synonyms = tuple((name, *lemma.split(", ")) for name, lemma in zip(names, lemmas, strict=True))
    return Classes(names, synonyms, ids)


def named(names: list[str]) -> Classes:
    """Classes that have one name each, such as those of one's own network.

    Raises:
        InputError: if a name is empty or stands twice.
    """
    plain = [_plain(name) for name in names]
    for index, name in enumerate(names):
        if not name:
            raise InputError(f"class {index} has an empty name; expected one name a line")
        if plain[index] in plain[:index]:
            raise InputError(f"class name '{name}' stands twice; expected different names")
    return Classes(tuple(names), tuple((name,) for name in names))


def numbered(count: int) -> Classes:
    """Classes of which only the number is known; ImageNet's where there are exactly 1,000."""
    return imagenet() if count == 1000 else named([f"class {index}" for index in range(count)])


def from_file(path: Path) -> Classes:
    """Class names from a text file, one a line, in the order of the logits.

    Raises:
        InputError: if the file cannot be read as text, or a name is empty or stands twice.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"cannot read class names from {path}: no file")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read class names from {path}: {error}") from None
    return named([line.strip() for line in lines])


def find(classes: Classes, text: str) -> int:
    """The index of a class given by index, WordNet id, name or synonym (case and underscores ignored).

    Raises:
        InputError: if the index is out of range, or the name is unknown or ambiguous; the line lists
            the nearest names.
    """
    if re.fullmatch(r"[0-9]+", text) and text not in classes.names:
        if int(text) >= len(classes):
            raise InputError(f"class {text} is out of range: the network has {len(classes)} classes, 0 to {len(classes) - 1}")
        return int(text)
    if text in classes.wordnet:
        return classes.wordnet.index(text)
    wanted = _plain(text)
    plain = [(_plain(name), index) for index, names in enumerate(classes.synonyms) for name in names]
    exact = sorted({index for name, index in plain if name == wanted})
    if len(exact) == 1:
        return exact[0]
    if exact:
        near = listed([classes.label(index) for index in exact], 8)
        raise InputError(f"class '{text}' is ambiguous: {near}; name one of them by its index")
    owner = dict(plain)
    words = [name for name in owner if re.search(rf"\b{re.escape(wanted)}\b", name)] if wanted else []
    close = dict.fromkeys(owner[name] for name in words + get_close_matches(wanted, owner, n=5, cutoff=0.5))
    near = listed([classes.label(index) for index in close], 8) or "none; pass an index"
    raise InputError(f"no class '{text}'; the nearest: {near}")


def of_folder(classes: Classes, folder: str) -> int:
    """The class whose photographs a folder holds, found as by :func:`find`.

    A display name wins over another class's synonym, since data sets are named after display names.

    Raises:
        InputError: if the folder names no class of the network.
    """
    try:
        return find(classes, folder)
    except InputError as error:
        for same in (str, _plain):
            display = [index for index, name in enumerate(classes.names) if same(name) == same(folder)]
            if len(display) == 1:
                return display[0]
        raise InputError(f"class folder '{folder}': {error}") from None


def _plain(name: str) -> str:
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name.replace("_", " ")).strip().casefold()
