"""PyTorch network to ONNX file, one node per operator as written, and the comparison of both."""

import warnings

import numpy as np
import onnx
import onnxruntime
import torch

from zoo import fit

OPSET = 17
INPUT, OUTPUT = "image", "logits"

# What the networks are written in; anything else is the exporter's own invention.
OPERATORS = {
    "Add",
    "BatchNormalization",
    "Concat",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "MaxPool",
    "Mul",
    "Neg",
    "Relu",
    "Reshape",
    "Sigmoid",
}


def export(network, path, any_size=False):
    """Write `network` with a free batch dimension, and a free height and width if `any_size`."""
    sizes = {2: "H", 3: "W"} if any_size else {}
    out_sizes = {2: "H_out", 3: "W_out"} if any_size else {}
    with warnings.catch_warnings():
        # The exporter advises against folding constants in this mode; there are none here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            torch.zeros(2, 1, 28, 28),
            path,
            # The newer exporter rewrites and fuses; this one keeps the operators as written.
            dynamo=False,
            # The default mode would fold batch normalisation into the convolutions.
            training=torch.onnx.TrainingMode.PRESERVE,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "N", **sizes}, OUTPUT: {0: "N", **out_sizes}},
        )
    model = onnx.load(path)
    constants_to_initializers(model.graph)
    share_initializers(model.graph)
    foreign = {node.op_type for node in model.graph.node} - OPERATORS
    if foreign:
        raise ValueError(f"{path}: unexpected operators {sorted(foreign)}")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def constants_to_initializers(graph):
    """Replace Constant nodes (the target shapes of Reshape) by initializers of the same name."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def share_initializers(graph):
    """Let readers of an Identity of an initializer read the initializer.

    The exporter stores equal tensors once: the shifts of two normalisations whose results are
    added get the same gradients, so they stay equal.
    """
    names = {initializer.name for initializer in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity"]:
        if node.input[0] not in names:
            continue
        for reader in graph.node:
            for position, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[position] = node.input[0]
        graph.node.remove(node)


def run(path, images, batch=500):
    """Output of an exported network for all images, as onnxruntime computes it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    parts = [session.run([OUTPUT], {INPUT: part})[0] for part in fit.split(images, batch)]
    return np.concatenate(parts)


def compare(network, path, images, labels):
    """Accuracy on both sides and how well they agree, as a dictionary for JSON."""
    expected = fit.predict(network, images)
    found = run(path, images).reshape(expected.shape)
    return {
        "accuracy_pytorch": round(fit.accuracy(expected, labels), 2),
        "accuracy_onnxruntime": round(fit.accuracy(found, labels), 2),
        "argmax_agreement": int(np.sum(expected.argmax(1) == found.argmax(1))),
        "images": len(images),
        "max_logit_difference": float(f"{np.abs(expected - found).max():.3g}"),
    }
