"""The one training loop of the zoo, the same budget for every network, and its evaluation."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from zoo import data


@dataclass(frozen=True)
class Recipe:
    """AdamW under a one-cycle cosine schedule, cross entropy with label smoothing."""

    seed: int = 1
    epochs: int = 6
    batch: int = 128
    peak_rate: float = 4e-3
    weight_decay: float = 0.02
    smoothing: float = 0.05


def seeded(build, seed):
    """A network whose initial weights depend on `seed` alone."""
    torch.manual_seed(seed)
    return build()


def fit(network, images, labels, recipe, name):
    """Train `network` on f32 images and integer labels; returns the seconds it took."""
    # NHWC is the faster layout of PyTorch's CPU convolutions; the weights keep their values.
    network.train().to(memory_format=torch.channels_last)
    images, labels = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    generator = torch.Generator().manual_seed(recipe.seed)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.peak_rate, weight_decay=recipe.weight_decay
    )
    steps = len(images) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, total_steps=recipe.epochs * steps, pct_start=0.2
    )
    start = time.monotonic()
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = data.augment(images[chosen], generator)
            optimizer.zero_grad()
            logits = network(batch.to(memory_format=torch.channels_last)).flatten(1)
            loss = loss_of(logits, labels[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.monotonic() - start
        print(f"{name}: epoch {epoch + 1}, loss {total / steps:.4f}, {seconds:.0f} s", flush=True)
    network.eval().to(memory_format=torch.contiguous_format)
    return time.monotonic() - start


@torch.no_grad()
def predict(network, images, batch=500):
    """Logits [count, 10] of a trained network, as PyTorch computes them."""
    parts = [network(torch.from_numpy(part)).flatten(1) for part in split(images, batch)]
    return torch.cat(parts).numpy()


def split(images, batch):
    """Consecutive parts of at most `batch` images."""
    return [images[start : start + batch] for start in range(0, len(images), batch)]


def accuracy(logits, labels):
    """Percentage of images whose largest logit is the label's."""
    return 100 * float(np.mean(logits.argmax(1) == labels))
