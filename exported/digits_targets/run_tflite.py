"""Say what a TFLite file of this bundle makes of an image or a CSV of raw numbers, 64 per sample; one line each.

    pip install ai-edge-litert pillow
    python run_tflite.py INPUT [MODEL]
"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def opened(path):
    model = Interpreter(str(path))
    model.allocate_tensors()
    source, result = model.get_input_details()[0], model.get_output_details()[0]

    def run(x):
        model.set_tensor(source["index"], x)
        model.invoke()
        return model.get_tensor(result["index"])

    return run


LABELS = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
SHAPE = (8, 8, 1)  # of one sample, without the batch
MODELS = {  # batch, what goes in, what comes out
    'model.tflite': (1, {'dtype': 'float32'}, {'dtype': 'float32'}),
    'model_int8.tflite': (1, {'dtype': 'int8', 'scale': 0.062745101749897, 'zero_point': -128}, {'dtype': 'int8', 'scale': 0.00390625, 'zero_point': -128}),
}
HERE = Path(__file__).resolve().parent


def read(path):
    """Return samples (N, *SHAPE) from a CSV of raw numbers or from one image."""
    if path.suffix.lower() != ".csv":
        return read_image(path)
    rows = np.loadtxt(path, delimiter=",", ndmin=2)
    if rows.size == 0 or rows.size % np.prod(SHAPE):
        raise ValueError(f"{rows.size} numbers; {np.prod(SHAPE)} per sample are due")
    return rows.reshape(-1, *SHAPE)


def read_image(path):
    """Turn as EXIF says, lay on white, crop to the centre, resize; black is 0.0, white 16.0."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("L")
    image = ImageOps.fit(image, (8, 8), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float64).reshape(8, 8, 1)
    return (pixels / 255 * 16.0 + 0.0)[None]


def to_model(x, dtype, scale=None, zero_point=0):
    if scale is None:
        return x.astype(dtype)
    steps = np.round(x / scale) + zero_point
    return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def from_model(y, dtype, scale=None, zero_point=0):
    return y if scale is None else (y.astype(np.float64) - zero_point) * scale


def main(source, model='model.tflite'):
    if model not in MODELS:
        sys.exit(f"{model}: not a file of this program; {', '.join(MODELS)} are.")
    try:
        samples = read(Path(source))
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{source}: {error}. Give an image or a .csv of raw numbers, 64 per sample.")
    batch, taken, given = MODELS[model]
    run = opened(HERE / model)
    for sample in samples:
        x = np.repeat(sample[None], batch, axis=0)  # a fixed batch is filled with the one sample
        y = from_model(run(to_model(x, **taken))[0], **given)
        print(f"{LABELS[y.argmax()]}  {y.max():.4f}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
