"""Train the networks of the zoo, export each to ONNX and write results.json and its table.

Run from the root of the repository: python -m zoo.train
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from zoo import data, export, fit, models

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
README = FOLDER / "README.md"
TABLE_BEGIN = "<!-- results.json, written by train.py -->\n"
TABLE_END = "<!-- end of results -->\n"

# A mosaic of SIDE x SIDE test images, on which the sliding network must find every one again.
SIDE = 10


def arguments():
    """The command line; the defaults are the committed models'."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data.DEFAULT_FOLDER)
    parser.add_argument("--networks", nargs="+", choices=models.ZOO, default=list(models.ZOO))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time, a thread each")
    return parser.parse_args()


def train(name, recipe, folder):
    """Train, export and measure one network; returns its entry of results.json."""
    # One thread keeps the order of every sum, and so the result, the same from run to run.
    torch.set_num_threads(1)
    images, labels = data.load("train", folder)
    network = fit.seeded(models.ZOO[name], recipe.seed)
    seconds = fit.fit(network, data.to_input(images), labels, recipe, name)

    path = FOLDER / "models" / f"{name}.onnx"
    path.parent.mkdir(exist_ok=True)
    sliding = name == "sliding"
    export.export(network, path, any_size=sliding)
    images, labels = data.load("t10k", folder)
    images = data.to_input(images)
    entry = {
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "seconds": round(seconds),
        "parameters": models.count_parameters(network),
        "macs": models.count_macs(network),
        "bytes": path.stat().st_size,
        **export.compare(network, path, images, labels),
    }
    if sliding:
        entry["mosaic_agreement"] = mosaic_agreement(path, images[: SIDE * SIDE])
    return entry


def mosaic_agreement(path, images):
    """How many images a mosaic classifies as they are classified alone.

    28 is a multiple of the network's step of 4, so every image has an output of its own.
    """
    size = images.shape[-1]
    mosaic = images.reshape(SIDE, SIDE, size, size).transpose(0, 2, 1, 3)
    dense = export.run(path, mosaic.reshape(1, 1, SIDE * size, SIDE * size))
    found = dense[0, :, :: size // 4, :: size // 4].argmax(0).reshape(-1)
    alone = export.run(path, images).reshape(len(images), -1).argmax(1)
    return int(np.sum(found == alone))


def table(results):
    """Markdown rows in the order of the zoo, for the networks there are results of."""
    lines = [
        "| network | parameters | MACs | bytes | epochs | PyTorch % | onnxruntime % | same class |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in filter(results.get, models.ZOO):
        entry = results[name]
        lines.append(
            f"| `{name}` | {entry['parameters']:,} | {entry['macs']:,} | {entry['bytes']:,} "
            f"| {entry['epochs']} | {entry['accuracy_pytorch']:.2f} "
            f"| {entry['accuracy_onnxruntime']:.2f} "
            f"| {entry['argmax_agreement']:,} of {entry['images']:,} |"
        )
    return "\n".join(lines) + "\n"


def write_table(results):
    """Replace the table in README.md."""
    before, rest = README.read_text().split(TABLE_BEGIN)
    after = rest.split(TABLE_END)[1]
    README.write_text(before + TABLE_BEGIN + table(results) + TABLE_END + after)


def main():
    """Train what was asked for; results of other networks in results.json stay."""
    options = arguments()
    recipe = fit.Recipe(seed=options.seed, epochs=options.epochs)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    # Threads of PyTorch do not survive a fork.
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        running = {
            pool.submit(train, name, recipe, options.data): name for name in options.networks
        }
        for done in as_completed(running):
            results[running[done]] = done.result()
            RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
            write_table(results)


if __name__ == "__main__":
    main()
