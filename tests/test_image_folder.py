"""Folders of pictures: what is read and how, and how what cannot be read is named. Every file is a real one."""

from __future__ import annotations

import dataclasses
import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeml import data
from edgeml.errors import DataError
from edgeml.recipe import Data, Splits

RNG = np.random.default_rng(0)
GIVEN = Splits(test="given")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3)).astype(np.uint8))


def folder(
    root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 8, size: tuple[int, int] = (12, 10)
) -> Data:
    for name in classes:
        (root / name).mkdir(parents=True)
        for k in range(each):
            noise(*size).save(root / name / f"{k}.png")
    return Data(source="image_folder", path=str(root), image_size=8)


def loaded_pixel(root: Path, name: str, at: tuple[int, int] = (4, 4)) -> list[int]:
    """Load the folder, return one pixel of one file."""
    loaded = data.load(Data(source="image_folder", path=str(root), image_size=8))
    return loaded.x[loaded.ids.index(name)][at].tolist()


def test_image_folder_names_classes_by_folder(tmp_path):
    folder(tmp_path, ("zebra", "ape", "cat"))
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "ape" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "ape" / "Thumbs.db").write_bytes(b"x")
    loaded = data.load(Data(source="image_folder", path=str(tmp_path)))
    assert loaded.labels == ("ape", "cat", "zebra")
    assert loaded.x.shape == (24, 96, 96, 3)
    assert loaded.ids[0] == "ape/0.png"
    assert loaded.y.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert loaded.notes == (
        "files that are no pictures, left out: README.md, Thumbs.db",
        "no picture is larger than 12 pixels, all were enlarged to 96: set data.image_size",
    )


def test_image_folder_takes_train_and_test(tmp_path):
    folder(tmp_path / "train", each=6)
    config = dataclasses.replace(folder(tmp_path / "test", each=2), path=str(tmp_path), splits=GIVEN)
    loaded = data.load(config)
    assert loaded.x.shape == (12, 8, 8, 3)
    assert loaded.test[0].shape == (4, 8, 8, 3)
    assert loaded.test[1].tolist() == [0, 0, 1, 1]
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "cow")
    with pytest.raises(DataError, match="test has class 'cow'; train has cat, dog"):
        data.load(config)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="train and test, and also val"):
        data.load(config)


def test_every_file_type_and_mode_is_read(tmp_path):
    folder(tmp_path)
    red = Image.new("RGB", (20, 20), (200, 30, 40))
    red.save(tmp_path / "cat" / "a.JPEG", quality=95)
    red.save(tmp_path / "cat" / "b.webp", lossless=True)
    red.save(tmp_path / "cat" / "c.bmp")
    red.convert("P").save(tmp_path / "cat" / "d.gif", save_all=True, append_images=[Image.new("P", (20, 20))])
    red.convert("CMYK").save(tmp_path / "cat" / "e.jpg", quality=95)
    red.save(tmp_path / "cat" / "really_a_png.jpg", format="PNG")
    for name in ("a.JPEG", "b.webp", "c.bmp", "d.gif", "e.jpg", "really_a_png.jpg"):
        assert np.abs(np.subtract(loaded_pixel(tmp_path, f"cat/{name}"), (200, 30, 40))).max() <= 6, name


def test_transparent_becomes_white(tmp_path):
    folder(tmp_path)
    clear, half = Image.new("RGBA", (9, 9), (10, 20, 30, 0)), Image.new("RGBA", (9, 9), (10, 20, 30, 128))
    clear.save(tmp_path / "cat" / "clear.webp", lossless=True, exact=True)
    half.save(tmp_path / "cat" / "half.png")
    clear.convert("LA").save(tmp_path / "cat" / "grey.png")
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 90, 0, 0])
    palette.save(tmp_path / "cat" / "palette.png", transparency=1)
    palette.save(tmp_path / "cat" / "palette.gif", transparency=1)
    for name in ("clear.webp", "grey.png", "palette.png", "palette.gif"):
        assert loaded_pixel(tmp_path, f"cat/{name}") == [255, 255, 255], name
    assert np.abs(np.subtract(loaded_pixel(tmp_path, "cat/half.png"), (132, 137, 142))).max() <= 1


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (7, 7)), (6, (0, 7)), (8, (7, 0))])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_turns_the_picture(orientation, corner, suffix, tmp_path):
    folder(tmp_path)
    image = Image.new("RGB", (64, 64))
    image.paste((255, 255, 255), (0, 0, 16, 16))  # upper left as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "cat" / f"turned.{suffix}", exif=exif)
    for at in ((0, 0), (0, 7), (7, 0), (7, 7)):
        assert (loaded_pixel(tmp_path, f"cat/turned.{suffix}", at)[0] > 128) == (at == corner)


def test_the_centre_square_is_kept_and_not_stretched(tmp_path):
    folder(tmp_path)
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = (0, 0, 250)
    wide[:, 60:80] = (250, 0, 0)
    Image.fromarray(wide).save(tmp_path / "cat" / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "cat" / "tall.png")
    for name, left, right in (("wide", (4, 1), (4, 6)), ("tall", (1, 4), (6, 4))):
        assert loaded_pixel(tmp_path, f"cat/{name}.png", left) == [0, 0, 250]
        assert loaded_pixel(tmp_path, f"cat/{name}.png", right) == [250, 0, 0]


def test_reduction_is_antialiased(tmp_path):
    folder(tmp_path)
    board = (np.indices((640, 640)).sum(0) % 2 * 255).astype(np.uint8)  # a chessboard of pixels is grey from afar
    for suffix in ("png", "jpg"):
        Image.fromarray(board).convert("RGB").save(tmp_path / "cat" / f"board.{suffix}")
        assert abs(loaded_pixel(tmp_path, f"cat/board.{suffix}")[0] - 128) <= 2


def test_channels_are_grey_only_if_every_picture_is(tmp_path):
    config = folder(tmp_path)
    for path in tmp_path.glob("*/*.png"):
        Image.open(path).convert("L").save(path)
    Image.fromarray(np.full((12, 12), 40_000, np.uint16)).save(tmp_path / "cat" / "deep.png")
    Image.new("1", (12, 12), 1).save(tmp_path / "cat" / "line.png")
    grey = data.load(config)
    assert grey.x.shape == (18, 8, 8, 1)
    assert grey.x[grey.ids.index("cat/deep.png"), 4, 4, 0] == 40_000 >> 8
    assert grey.x[grey.ids.index("cat/line.png"), 4, 4, 0] == 255
    assert data.load(dataclasses.replace(config, channels="rgb")).x.shape[-1] == 3

    Image.new("RGB", (12, 12), (0, 255, 0)).save(tmp_path / "dog" / "green.png")
    assert data.load(config).x.shape == (19, 8, 8, 3)
    forced = data.load(dataclasses.replace(config, channels="gray"))
    assert forced.x[forced.ids.index("dog/green.png"), 4, 4].tolist() == [150]  # ITU-R 601: 0.587 of 255


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with hardly any data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def half_of(name: str) -> bytes:
    """The first half of a picture file of this type."""
    stream = io.BytesIO()
    noise(64, 64).save(stream, Path(name).suffix.replace("jpg", "jpeg")[1:])
    return stream.getvalue()[: stream.tell() // 2]


BAD_FILES = {
    "empty.jpg": (lambda: b"", "empty file"),
    "text.png": (lambda: b"hello, I am no picture", "not a picture"),
    "cut.jpg": (lambda: half_of("cut.jpg"), "corrupt: image file is truncated"),
    "cut.png": (lambda: half_of("cut.png"), "corrupt: image file is truncated"),
    "cut.gif": (lambda: half_of("cut.gif"), "corrupt: "),
    "cut.bmp": (lambda: half_of("cut.bmp"), "corrupt: image file is truncated"),
    "cut.webp": (lambda: half_of("cut.webp"), ""),
    "big.png": (lambda: png_header(10_000, 5_001), "10000 x 5001 pixels"),
    "bigger.png": (lambda: png_header(10_000, 12_000), "10000 x 12000 pixels"),
    "biggest.png": (lambda: png_header(20_000, 20_000), "more than 50 megapixels"),
    "phone.heic": (lambda: b"x", "type '.heic' is not read"),
    "scan.tiff": (lambda: b"x", "type '.tiff' is not read"),
    "noname": (lambda: b"x", "type '' is not read"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named(name, tmp_path):
    content, reason = BAD_FILES[name]
    config = folder(tmp_path)
    (tmp_path / "cat" / name).write_bytes(content())
    with pytest.raises(DataError) as refused:
        data.load(config)
    message = str(refused.value)
    assert message.startswith(f"image_folder {tmp_path}: 1 file cannot be used: cat/{name} ({reason}")
    assert "jpg, png, bmp, gif and webp up to 50 megapixels are read. Repair or remove" in message
    assert "\n" not in message


def test_a_tiff_in_disguise_is_no_picture(tmp_path):
    config = folder(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "cat" / "scan.jpg", format="TIFF")
    with pytest.raises(DataError, match=r"cat/scan\.jpg \(not a picture\)"):
        data.load(config)


def test_many_bad_files_are_counted_and_three_are_named(tmp_path):
    config = folder(tmp_path)
    for k in range(5):
        (tmp_path / "dog" / f"bad{k}.jpg").touch()
    with pytest.raises(
        DataError, match=r"5 files cannot be used: dog/bad0.jpg \(empty file\), .*bad2.jpg \(empty file\), …;"
    ):
        data.load(config)


def test_headers_are_all_read_before_anything_is_decoded(tmp_path):
    config = folder(tmp_path)
    (tmp_path / "cat" / "cut.jpg").write_bytes(half_of("cut.jpg"))
    (tmp_path / "dog" / "huge.png").write_bytes(png_header(20_000, 20_000))
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"1 file cannot be used: dog/huge.png \(more than"):
        data.load(config)
    assert time.perf_counter() - started < 1


def test_folders_that_are_no_data_set_are_refused(tmp_path):
    config = folder(tmp_path / "images")
    root = tmp_path / "images"
    cases = [
        ((root / "cow").mkdir, r"no pictures in 'cow'; a class needs some"),
        ((root / "cow" / "notes.txt").touch, r"no pictures in 'cow'"),
        ((root / "cow" / "deeper").mkdir, r"cow/deeper \(a folder inside a class folder\)"),
        ((root / "loose.jpg").touch, r"loose.jpg: lies in no class folder"),
    ]
    for spoil, words in cases:
        spoil()
        with pytest.raises(DataError, match=words):
            data.load(config)
    for path, words in (
        (tmp_path / "none", "No such file"),
        (root / "cat", "lies in no class"),
        (root / "loose.jpg", "Not a dir"),
    ):
        with pytest.raises(DataError, match=words):
            data.load(Data(source="image_folder", path=str(path)))
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        data.load(Data(source="image_folder", path=str(tmp_path / "bare")))


def test_the_photos_of_trashnet_load_in_seconds(shared_data):
    started = time.perf_counter()
    loaded = data.load(Data(source="image_folder", path=str(shared_data / "data" / "trashnet150")))
    assert time.perf_counter() - started < 10
    assert loaded.x.shape == (2527, 96, 96, 3)
    assert loaded.labels == ("cardboard", "glass", "metal", "paper", "plastic", "trash")
    assert any("classes differ by 4.3 to 1 ('paper' 594, 'trash' 137)" in note for note in loaded.notes)


def test_the_png_sample_of_cifar10_is_kept_pixel_by_pixel(shared_data):
    root = shared_data / "data" / "cifar10_sample_png"
    loaded = data.load(Data(source="image_folder", path=str(root), image_size=32, splits=GIVEN))
    assert loaded.x.shape == (1000, 32, 32, 3)
    assert loaded.test[0].shape == (200, 32, 32, 3)
    for k in (0, 500, 999):
        np.testing.assert_array_equal(loaded.x[k], np.asarray(Image.open(root / loaded.ids[k])))
