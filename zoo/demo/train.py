"""Train the demo classifier, export it to ONNX and check the export on the full test set.

Run from the root of the repository: python -m zoo.demo.train
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from zoo import data, export, fit, models

# The committed sample: the first images of the test set, in order.
SAMPLE = 120


def arguments():
    """The command line; the defaults are the committed model's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data.DEFAULT_FOLDER)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main():
    """Write demo.onnx, the sample images with labels and class names, and demo.json."""
    options = arguments()
    torch.set_num_threads(options.threads)
    recipe = fit.Recipe(seed=options.seed, epochs=options.epochs)

    images, labels = data.load("train", options.data)
    network = fit.seeded(models.Demo, recipe.seed)
    seconds = fit.fit(network, data.to_input(images), labels, recipe, "demo")

    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "demo.onnx"
    export.export(network, path)
    images, labels = data.load("t10k", options.data)
    np.save(options.output / "images.npy", images[:SAMPLE])
    np.save(options.output / "labels.npy", labels[:SAMPLE])
    (options.output / "classes.txt").write_text("\n".join(data.CLASSES) + "\n")

    result = {
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "threads": options.threads,
        "seconds": round(seconds),
        "parameters": models.count_parameters(network),
        "macs": models.count_macs(network),
        "bytes": path.stat().st_size,
        **export.compare(network, path, data.to_input(images), labels),
    }
    text = json.dumps(result, indent=2)
    (options.output / "demo.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
