"""Say what an ONNX file of this bundle makes of an image or a CSV of raw numbers; one line per sample.

    pip install onnxruntime pillow
    python run_onnx.py INPUT [MODEL]

A row of the CSV is a sample, 64 numbers; 8 rows of 8 are one, too. A header may stand above; `;`, tab
or `|` may part them in place of commas, and numbers have decimal commas then, if need be.
"""

import csv
import math
import os
import sys
from pathlib import Path

try:
    import numpy as np
    import onnxruntime
except ModuleNotFoundError as error:
    sys.exit(f"{error}. Do: pip install onnxruntime")


def opened(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(['probabilities'], {name: x})[0]


LABELS = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
SHAPE = (8, 8, 1)  # of one sample, without the batch
SIZE = math.prod(SHAPE)
MODELS = {  # batch, what goes in, what comes out
    'model.onnx': (1, {'dtype': 'float32'}, {'dtype': 'float32'}),
    'model_int8.onnx': (1, {'dtype': 'uint8', 'scale': 0.062745101749897, 'zero_point': 0}, {'dtype': 'float32'}),
}
HERE = Path(__file__).resolve().parent


def read(path):
    """Return samples (N, *SHAPE) from a CSV of raw numbers or from one image."""
    if path.suffix.lower() != ".csv":
        return read_image(path)
    rows = read_rows(path)
    if [len(row) for _, row in rows] == [SIZE // 8] * 8:  # one sample, row by row
        rows = [(1, [x for _, row in rows for x in row])]
    for line, row in rows:
        if len(row) != SIZE:
            raise ValueError(f"line {line}: {len(row)} numbers; {SIZE}, a sample, are due")
    samples = np.array([row for _, row in rows]).reshape(-1, *SHAPE)
    return samples


def read_rows(path):
    """Return the numbers of each line of a CSV, without its header."""
    text = path.read_text("utf-8-sig")
    separator = next((mark for mark in ";\t|" if mark in text.rstrip().rpartition("\n")[2]), ",")
    lines = [(line, row) for line, row in enumerate(csv.reader(text.splitlines(), delimiter=separator), 1) if row]
    marks = "." if separator == "," else ".,"
    if lines and all(number(cell, mark) is None for cell in lines[0][1] for mark in marks):
        del lines[0]
    if not lines:
        raise ValueError("no numbers in it")
    mark = "," if separator != "," and any("," in cell for _, row in lines for cell in row) else "."
    rows = [(line, [number(cell, mark) for cell in row]) for line, row in lines]
    for line, row in rows:
        for column, x in enumerate(row, 1):
            if x is None or not math.isfinite(x):
                raise ValueError(f"line {line}, column {column}: not a finite number")
    return rows


def number(cell, mark):
    try:
        return float(cell if mark == "." else cell.translate({ord("."): ",", ord(","): "."}))
    except ValueError:
        return None


def read_image(path):
    """Read as in training: turned, on white, cropped to the centre, resized; black is 0.0, white 16.0."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = None  # fewer are taken here
    with Image.open(path, formats=('JPEG', 'PNG', 'BMP', 'GIF', 'WEBP')) as file:
        if file.width * file.height > 50_000_000:
            raise ValueError(f"{file.width} x {file.height} pixels; 50 megapixels are the most")
        file.draft(None, (16, 16))
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16-bit grey keeps its upper 8 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("L")
    w, h = min(image.width, image.height * 8 / 8), min(image.height, image.width * 8 / 8)
    box = ((image.width - w) / 2, (image.height - h) / 2, (image.width + w) / 2, (image.height + h) / 2)
    image = image.resize((8, 8), Image.Resampling.BILINEAR, box, reducing_gap=2.0)
    pixels = np.asarray(image, np.float64).reshape(8, 8, 1)
    return (pixels / 255 * 16.0 + 0.0)[None]


def to_model(x, dtype, scale=None, zero_point=0):
    if scale is None:
        return x.astype(dtype)
    steps = np.round(x / scale) + zero_point
    return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def from_model(y, dtype, scale=None, zero_point=0):
    return y if scale is None else (y.astype(np.float64) - zero_point) * scale


def attempt(action, path, advice):
    """Do it, or say in one line why not: what Pillow, csv and runtimes raise has no common class."""
    try:
        return action(path)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}. Do: pip install pillow")
    except Exception as error:
        sys.exit(f"{path}: {' '.join(str(error).split()).rstrip('.')}. {advice}")


def main(source, model='model.onnx'):
    if model not in MODELS:
        sys.exit(f"{model}: not a file of this program; {', '.join(MODELS)} are.")
    samples = attempt(read, Path(source), "Give a jpg, png, bmp, gif or webp image, or a .csv of raw numbers, 64 per sample and no class.")
    run = attempt(opened, HERE / model, "Check the bundle: python verify.py")
    batch, taken, given = MODELS[model]
    for sample in samples:
        x = np.repeat(sample[None], batch, axis=0)  # a fixed batch is filled with the one sample
        y = from_model(run(to_model(x, **taken))[0], **given)
        print(f"{LABELS[y.argmax()]}  {y.max():.4f}")
    sys.stdout.flush()


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(__doc__)
    elif len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    else:
        try:
            main(*sys.argv[1:])
        except BrokenPipeError:  # `| head -1` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
