"""Write the full test set and the demo's answers as .npy files, to measure accuracy elsewhere.

Run from the root of the repository: python -m zoo.export_test_set FOLDER
"""

import argparse
from pathlib import Path

import numpy as np

from zoo import data, export


def main():
    """Write test_images.npy, test_labels.npy, test_logits.npy and test_argmax.npy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=data.DEFAULT_FOLDER)
    default = Path(__file__).parent / "demo" / "demo.onnx"
    parser.add_argument("--model", type=Path, default=default)
    options = parser.parse_args()

    images, labels = data.load("t10k", options.data)
    images = data.to_input(images)
    logits = export.run(options.model, images).reshape(len(images), -1)
    options.folder.mkdir(parents=True, exist_ok=True)
    np.save(options.folder / "test_images.npy", images)
    np.save(options.folder / "test_labels.npy", labels)
    np.save(options.folder / "test_logits.npy", logits)
    np.save(options.folder / "test_argmax.npy", logits.argmax(1).astype(np.int64))


if __name__ == "__main__":
    main()
