"""Fashion-MNIST: reading the IDX files and the light augmentation used in training."""

import gzip
from pathlib import Path

import numpy as np
import torch

# Where the Debian package `dataset-fashion-mnist` puts the files.
DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# IDX magic numbers: unsigned bytes in three dimensions (images) or one (labels).
IMAGES_MAGIC = 0x0803
LABELS_MAGIC = 0x0801


def read_idx(path, magic):
    """The array in one gzipped IDX file, which must carry the expected magic number."""
    content = gzip.decompress(Path(path).read_bytes())
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        raise ValueError(f"{path}: magic number {found:#06x}, expected {magic:#06x}")
    rank = magic & 0xFF
    shape = np.frombuffer(content, ">u4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load(part, folder=DEFAULT_FOLDER):
    """Images uint8 [count, 28, 28] and labels uint8 [count] of `part`, "train" or "t10k"."""
    images = read_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz", IMAGES_MAGIC)
    labels = read_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz", LABELS_MAGIC)
    return images, labels


def to_input(images):
    """The networks' input: f32 [count, 1, 28, 28] in 0..1, without any further normalisation."""
    return images[:, None].astype(np.float32) / np.float32(255)


def augment(images, generator, shift=1):
    """Mirror half of the images, and move each by up to `shift` pixels per axis over black."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (shift,) * 4)
    top, left = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(count)[:, None, None]
    return padded[image, 0, rows[:, :, None], columns[:, None, :]][:, None]
