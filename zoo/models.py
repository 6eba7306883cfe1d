"""The networks of the zoo: blocks of the papers, written so that ONNX shows every operator.

All take [N, 1, 28, 28] in 0..1 and give 10 logits. Convolutions in front of a batch
normalisation have no bias; all others, and all dense layers, have one.
"""

import torch
from torch import nn

CLASSES = 10


class ConvNorm(nn.Sequential):
    """Convolution and batch normalisation, with "same" padding at stride 1."""

    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)


class MaxMin(nn.Module):
    """Convolution whose result and negated result both go through ReLU (arXiv 1610.07882).

    Output channels are [h ; -h], so there are twice as many as filters; the bias changes
    sign with the rest.
    """

    def __init__(self, inputs, filters, kernel):
        super().__init__()
        self.conv = nn.Conv2d(inputs, filters, kernel, padding=kernel // 2)

    def forward(self, x):
        h = self.conv(x)
        return torch.relu(torch.cat([h, -h], 1))


class RirLayer(nn.Module):
    """One generalised residual layer on two streams (arXiv 1603.08029, equation 1).

    r' = relu(norm(conv(r) + conv(t) + shortcut(r))), t' = relu(norm(conv(r) + conv(t))).
    The shortcut stands inside the normalisation: the identity, or where the shape changes
    a 1x1 projection of the same stride without normalisation.
    """

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()

        def conv3x3():
            return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)

        self.r_to_r, self.t_to_r = conv3x3(), conv3x3()
        self.r_to_t, self.t_to_t = conv3x3(), conv3x3()
        self.norm_r, self.norm_t = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        if inputs == outputs and stride == 1:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, streams):
        r, t = streams
        r_sum = self.r_to_r(r) + self.t_to_r(t) + self.shortcut(r)
        t_sum = self.r_to_t(r) + self.t_to_t(t)
        return torch.relu(self.norm_r(r_sum)), torch.relu(self.norm_t(t_sum))


class SplitStreams(nn.Module):
    """The first layer of a two-stream network: one convolution per stream."""

    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__()
        self.r = ConvNorm(inputs, outputs, kernel, stride)
        self.t = ConvNorm(inputs, outputs, kernel, stride)

    def forward(self, x):
        return torch.relu(self.r(x)), torch.relu(self.t(x))


class SqueezeExcite(nn.Module):
    """Channel gates from the channel means, without an inner residual.

    One branch is SE (arXiv 1709.01507); several parallel dense branches of the same hidden
    width, concatenated, are SaE (arXiv 2311.10807).
    """

    def __init__(self, channels, hidden, branches):
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.branches = nn.ModuleList(nn.Linear(channels, hidden) for _ in range(branches))
        self.excite = nn.Linear(branches * hidden, channels)
        self.channels = channels

    def forward(self, x):
        means = self.squeeze(x).flatten(1)
        parts = [torch.relu(branch(means)) for branch in self.branches]
        joined = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        gates = torch.sigmoid(self.excite(joined))
        return x * gates.reshape(-1, self.channels, 1, 1)


def count_parameters(network):
    """Learned numbers: weights, biases, scale and shift of BN, but not its running statistics."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def count_macs(network):
    """Multiply-adds of all convolutions and dense layers for one 28x28 image."""
    total = 0

    def count(layer, _, result):
        nonlocal total
        # One output costs one filter: all weights but the first (output) axis.
        total += result.numel() * layer.weight[0].numel()

    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    network.eval()(torch.zeros(1, 1, 28, 28))
    for hook in hooks:
        hook.remove()
    return total


def mean_head(channels):
    """Global average and one dense layer to the classes."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def conv_relu(inputs, filters, kernel, padding=0):
    """Convolution with bias, then ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, filters, kernel, padding=padding), nn.ReLU())


def plain(filters):
    """Three 5x5 "same" convolutions, each with a 3x3/2 max pool without padding, two dense layers.

    `filters` are those of the three convolutions; 28x28 becomes 13x13, 6x6 and 2x2.
    """
    first, second, third = filters
    return nn.Sequential(
        conv_relu(1, first, 5, padding=2),
        nn.MaxPool2d(3, 2),
        conv_relu(first, second, 5, padding=2),
        nn.MaxPool2d(3, 2),
        conv_relu(second, third, 5, padding=2),
        nn.MaxPool2d(3, 2),
        *dense_head(4 * third),
    )


def maxmin(filters):
    """The network of `plain` with MaxMin blocks; each layer sees twice the previous filters."""
    first, second, third = filters
    return nn.Sequential(
        MaxMin(1, first, 5),
        nn.MaxPool2d(3, 2),
        MaxMin(2 * first, second, 5),
        nn.MaxPool2d(3, 2),
        MaxMin(2 * second, third, 5),
        nn.MaxPool2d(3, 2),
        *dense_head(4 * 2 * third),
    )


def dense_head(features, hidden=64):
    """Two dense layers on the flattened map."""
    return nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES)


class ResidualBlock(nn.Module):
    """Two 3x3 layers and a shortcut; ReLU after the sum, gates (if any) before it.

    Where the shape changes the shortcut is a 1x1 projection of the same stride, normalised.
    """

    def __init__(self, inputs, outputs, stride, gate):
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride)
        self.second = ConvNorm(outputs, outputs, 3)
        self.gate = gate
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride)

    def forward(self, x):
        residual = self.gate(self.second(torch.relu(self.first(x))))
        return torch.relu(residual + self.shortcut(x))


# Widths of the residual networks at 14x14, 7x7 and 4x4, one two-layer block each.
WIDTHS = (16, 32, 64)

# Hidden width of every gate branch: channels / REDUCTION, so 4, 8 and 16.
REDUCTION = 4


def resnet(branches=0):
    """Stem 5x5/2 and three residual blocks: ResNet (no branch), SE (one) or SaE (several)."""

    def gate(channels):
        if branches == 0:
            return nn.Identity()
        return SqueezeExcite(channels, channels // REDUCTION, branches)

    first, second, third = WIDTHS
    return nn.Sequential(
        ConvNorm(1, first, 5, stride=2),
        nn.ReLU(),
        ResidualBlock(first, first, 1, gate(first)),
        ResidualBlock(first, second, 2, gate(second)),
        ResidualBlock(second, third, 2, gate(third)),
        mean_head(third),
    )


class Rir(nn.Module):
    """ResNet in ResNet with the layers of `resnet`, both streams together as wide as its map.

    Every convolution of a residual block is a generalised layer; no outer two-layer shortcut.
    """

    def __init__(self):
        super().__init__()
        first, second, third = (width // 2 for width in WIDTHS)
        self.split = SplitStreams(1, first, 5, stride=2)
        self.layers = nn.Sequential(
            RirLayer(first, first),
            RirLayer(first, first),
            RirLayer(first, second, stride=2),
            RirLayer(second, second),
            RirLayer(second, third, stride=2),
            RirLayer(third, third),
        )
        self.head = mean_head(2 * third)

    def forward(self, x):
        r, t = self.layers(self.split(x))
        return self.head(torch.cat([r, t], 1))


def sliding():
    """A classifier of 28x28 windows that accepts larger images: [N, 10, 1, 1] for one window.

    No layer is padded, so every output is what its window alone would give. Two stride-2
    pools: windows are 4 pixels apart.
    """
    return nn.Sequential(
        conv_relu(1, 16, 5),
        nn.MaxPool2d(2),
        conv_relu(16, 32, 3),
        nn.MaxPool2d(2),
        conv_relu(32, 64, 3),
        # The dense layer of a classifier, as a convolution over the 3x3 map of one window.
        conv_relu(64, 64, 3),
        nn.Conv2d(64, CLASSES, 1),
    )


class Demo(nn.Module):
    """The demo classifier: a MaxMin stem, four RiR layers, an SaE block, a mean head."""

    def __init__(self):
        super().__init__()
        self.stem = MaxMin(1, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.split = SplitStreams(32, 16, 3)
        self.layers = nn.Sequential(
            RirLayer(16, 16),
            RirLayer(16, 32, stride=2),
            RirLayer(32, 32),
            RirLayer(32, 32),
        )
        self.sae = SqueezeExcite(64, hidden=8, branches=4)
        self.head = mean_head(64)

    def forward(self, x):
        r, t = self.layers(self.split(self.pool(self.stem(x))))
        return self.head(self.sae(torch.cat([r, t], 1)))


# Every network of the zoo but the demo, by the name of its ONNX file.
ZOO = {
    "plain": lambda: plain((16, 16, 32)),
    "maxmin_equal_layers": lambda: maxmin((16, 16, 32)),
    "maxmin_equal_parameters": lambda: maxmin((11, 11, 20)),
    "resnet": resnet,
    "rir": Rir,
    "se_resnet": lambda: resnet(branches=1),
    "sae_resnet": lambda: resnet(branches=4),
    "sliding": sliding,
}
