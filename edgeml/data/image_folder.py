"""Pictures in one folder per class: ``path/<class>/*.jpg``; or ``path/train/<class>/…`` and, given, ``path/test/…``.

Classes are the sorted folder names. Every file is looked at before training (all headers first, then all pictures),
and what cannot be used is named: ``image_dataset_from_directory`` (Keras 3.15) fails in mid-epoch on a corrupt file
without its name, skips ``.webp``, makes an empty folder a class and ignores EXIF rotation.

Each picture is turned as its EXIF orientation says, laid on white where it is transparent, cropped to its centre
square (nothing is stretched; the ends of the longer side are lost), and resized to ``image_size`` with antialiasing.
Of an animation the first frame counts; 16-bit grey keeps its upper 8 bits. Result: uint8, 0..255.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeml.data import Dataset
from edgeml.errors import DataError
from edgeml.recipe import Data

if TYPE_CHECKING:
    from PIL import Image as PillowImage

REQUIRES = ("path",)

DEFAULT_SIZE = 96
MAX_MEGAPIXELS = 50  # a 48 kB PNG can hold 20000 x 20000 pixels, which take 1.9 GB to decode
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # told by content, whatever the name says
NO_PICTURES = (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".db", ".ini")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
CHANNELS = {"rgb": 3, "gray": 1}
CORRUPT = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)  # Pillow's ways
ALLOWED = f"jpg, png, bmp, gif and webp up to {MAX_MEGAPIXELS} megapixels are read. Repair or remove what is named."

Classes = dict[str, list[Path]]


@dataclass(frozen=True)
class _Picture:
    """A file whose header was read."""

    path: Path
    label: int
    grey: bool
    longest: int  # pixels of the longer side


def load(config: Data) -> Dataset:
    """Load every picture below ``config.path``.

    Raises:
        DataError: no such folder, no or empty class folders, or files that cannot be used (the first three named).
    """
    root, size = Path(config.path or "").expanduser(), config.image_size or DEFAULT_SIZE
    try:
        parts, ignored = _listing(root)
    except OSError as error:
        raise DataError(f"image_folder {root}: {error.strerror}; a folder of class folders is needed.") from error
    labels = tuple(parts[0])
    unknown = [name for name in parts[-1] if name not in labels]
    if unknown:
        raise DataError(
            f"image_folder {root}: test has class '{unknown[0]}'; train has {', '.join(labels)}. Rename it."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on palettes, EXIF blocks and sizes; we judge ourselves
        pictures = _scan(root, [(path, labels.index(name)) for part in parts for name in part for path in part[name]])
        channels = CHANNELS.get(config.channels) or (1 if all(picture.grey for picture in pictures) else 3)
        x = _decode_all(root, pictures, size, channels)
    y = np.array([picture.label for picture in pictures], np.int64)
    train = sum(map(len, parts[0].values()))
    return Dataset(
        x=x[:train],
        y=y[:train],
        labels=labels,
        value_range=(0.0, 255.0),
        test=(x[train:], y[train:]) if len(parts) > 1 else None,
        notes=_notes(ignored, pictures, size),
        ids=tuple(picture.path.relative_to(root).as_posix() for picture in pictures[:train]),
        class_from="names of folders",
    )


def _listing(root: Path) -> tuple[list[Classes], list[str]]:
    """List the files of each class, of the whole or of train and test; and the names of files that are no pictures."""
    tops = [path.name for path in _visible(root) if path.is_dir()]
    given = {"train", "test"} <= set(tops)
    if given and len(tops) > 2:
        others = ", ".join(name for name in tops if name not in {"train", "test"})
        raise DataError(
            f"image_folder {root}: train and test, and also {others}; either classes or train and test only."
        )
    ignored: list[str] = []
    return [_by_class(part, ignored) for part in ([root / "train", root / "test"] if given else [root])], ignored


def _by_class(part: Path, ignored: list[str]) -> Classes:
    """List the files of each class folder of ``part``; files that are no pictures go to ``ignored``."""
    classes: Classes = {}
    for path in _visible(part):
        if path.is_dir():
            classes[path.name] = [file for file in _visible(path) if not _is_ignored(file, ignored)]
        elif not _is_ignored(path, ignored):
            raise DataError(
                f"image_folder {path}: lies in no class folder; each picture lies in the folder of its class."
            )
    if not classes:
        raise DataError(f"image_folder {part}: no class folders; one folder of pictures per class is needed.")
    empty = [f"'{name}'" for name, files in classes.items() if not files]
    if empty:
        raise DataError(
            f"image_folder {part}: no pictures in {', '.join(empty)}; a class needs some. Fill or remove it."
        )
    return classes


def _visible(folder: Path) -> Iterator[Path]:
    """Yield what is not hidden, sorted by name."""
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__MACOSX")))


def _is_ignored(path: Path, ignored: list[str]) -> bool:
    """Tell whether a file is plainly no picture, and then add its name to ``ignored``."""
    if path.suffix.lower() not in NO_PICTURES:
        return False
    ignored.append(path.name)
    return True


def _scan(root: Path, files: list[tuple[Path, int]]) -> list[_Picture]:
    """Read every header, decoding nothing.

    Raises:
        DataError: files that are empty, huge, of another type, or not pictures at all.
    """
    found = [_header(path, label) for path, label in files]
    _raise(root, [(path, what) for (path, _), what in zip(files, found, strict=True) if isinstance(what, str)])
    return [picture for picture in found if isinstance(picture, _Picture)]


def _header(path: Path, label: int) -> _Picture | str:
    """Return what the header says, or why the file cannot be used."""
    from PIL import Image

    if path.suffix.lower() not in SUFFIXES:
        return "a folder inside a class folder" if path.is_dir() else f"type '{path.suffix}' is not read"
    try:
        if not path.stat().st_size:
            return "empty file"
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            picture = _Picture(path, label, image.mode in GREY_MODES, max(width, height))
        return picture if width * height <= MAX_MEGAPIXELS * 1_000_000 else f"{width} x {height} pixels"
    except Image.DecompressionBombError:  # Pillow refuses to open what is larger still
        return f"more than {MAX_MEGAPIXELS} megapixels"
    except CORRUPT as error:
        return _reason(path, error)


def _decode_all(root: Path, pictures: list[_Picture], size: int, channels: int) -> NDArray[np.uint8]:
    """Decode every picture into (N, size, size, channels), on all cores.

    Raises:
        DataError: files that are truncated or corrupt.
    """
    x = np.empty((len(pictures), size, size, channels), np.uint8)

    def decode(index: int) -> tuple[Path, str] | None:
        path = pictures[index].path
        try:
            x[index] = _decode(path, size, channels)
        except CORRUPT as error:
            return path, _reason(path, error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes without the interpreter lock
        _raise(root, [problem for problem in pool.map(decode, range(len(pictures))) if problem])
    return x


def _decode(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """Decode one picture to (size, size, channels): turned, on white, centre-cropped, antialiased."""
    from PIL import Image, ImageOps

    with Image.open(path, formats=FORMATS) as file:
        file.draft(None, (2 * size, 2 * size))  # JPEG only: decodes a large photo at 1/2, 1/4 or 1/8 of its size
        image = _flat(ImageOps.exif_transpose(file), "L" if channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return np.asarray(image).reshape(size, size, channels)


def _flat(image: PillowImage.Image, mode: str) -> PillowImage.Image:
    """Return ``image`` in ``mode`` (L or RGB), laid on white where it is transparent."""
    from PIL import Image

    if image.mode.startswith("I"):  # Pillow 13 clips 16-bit grey at 255 instead of scaling it
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _reason(path: Path, error: Exception) -> str:
    """Say in a few words why Pillow could not read a file."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not a picture"
    return f"corrupt: {' '.join(str(error).replace(str(path), '').split()) or type(error).__name__}"


def _raise(root: Path, problems: list[tuple[Path, str]]) -> None:
    """Raise one line that counts the problems and names the first three."""
    if problems:
        named = ", ".join(f"{path.relative_to(root).as_posix()} ({reason})" for path, reason in problems[:3])
        count = "1 file cannot be used" if len(problems) == 1 else f"{len(problems)} files cannot be used"
        raise DataError(f"image_folder {root}: {count}: {named}{', …' * (len(problems) > 3)}; {ALLOWED}")


def _notes(ignored: list[str], pictures: list[_Picture], size: int) -> tuple[str, ...]:
    """Note ignored files, and pictures that had to be enlarged."""
    notes = []
    if ignored:
        notes.append(f"files that are no pictures, left out: {', '.join(ignored[:3])}{', …' * (len(ignored) > 3)}")
    longest = max(picture.longest for picture in pictures)
    if longest < size:
        notes.append(f"no picture is larger than {longest} pixels, all were enlarged to {size}: set data.image_size")
    return tuple(notes)
