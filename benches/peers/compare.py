#!/usr/bin/env python3
"""Sinew beside other engines on the same ONNX files: the same answers, and who is faster.

    python3 -m venv peers && peers/bin/pip install -r benches/peers/requirements.txt
    cargo build --release
    peers/bin/python benches/peers/compare.py MODEL.onnx... [--engines onnxruntime,mnn] [--threads 1] [--rounds 10]

Every engine gets the same random input and runs in a process of its own, which is stopped while it is not its turn; the
turns go A B C ... A B C ... A figure is the minimum over all rounds of the forward call alone, input and output in the
model's own layout. mnn and ncnn read files of their own, which their converters make first. Sinew's answers must agree with
onnxruntime's to 1e-4 of the largest magnitude of each output, those of the others to 5e-3; `--check` looks at Sinew's answers
only. Exit status 1: an answer differs.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from time import perf_counter, perf_counter_ns

import numpy as np

TOLERANCE = 1e-4
PEER_TOLERANCE = 5e-3


# --- engines: each gives a function that runs once, and one that gives the outputs of the last run -------------


def onnxruntime(model, threads, values):
    import onnxruntime as engine

    options = engine.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = engine.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds = {port.name: value for port, value in zip(session.get_inputs(), values)}
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for port in session.get_outputs():
        binding.bind_output(port.name)
    return lambda: session.run_with_iobinding(binding), binding.copy_outputs_to_cpu


def openvino(model, threads, values):
    import openvino as engine

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    compiled = engine.Core().compile_model(str(model), "CPU", settings)
    request = compiled.create_infer_request()
    for index, value in enumerate(values):
        request.set_input_tensor(index, engine.Tensor(value))
    outputs = range(len(compiled.outputs))
    return request.infer, lambda: [request.get_output_tensor(i).data.copy() for i in outputs]


def convert(command, folder):
    program, *options = command
    log = folder / "convert.log"
    with log.open("w") as output:
        if subprocess.run([program, *options], cwd=folder, stdout=output, stderr=subprocess.STDOUT).returncode:
            raise SystemExit(f"{program.name} cannot read the model:\n{log.read_text()}")


def mnn(model, threads, values):
    import MNN as engine

    with tempfile.TemporaryDirectory() as folder:
        own = pathlib.Path(folder) / "model.mnn"
        files = ["--modelFile", str(model.resolve()), "--MNNModel", str(own)]
        program = pathlib.Path(sys.executable).parent / "mnnconvert"
        convert([program, "-f", "ONNX", *files, "--bizCode", "sinew"], own.parent)
        net = engine.Interpreter(str(own))
    session = net.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
    inputs, outputs = net.getSessionInputAll(session), net.getSessionOutputAll(session)
    names, results = (ports_of(model, ports) for ports in ("get_inputs", "get_outputs"))
    kind, order = engine.Halide_Type_Float, engine.Tensor_DimensionType_Caffe

    def feed():
        for name, value in zip(names, values):
            inputs[name].copyFrom(engine.Tensor(value.shape, kind, value, order))

    def fetch(tensor):
        shape = tensor.getShape()
        host = engine.Tensor(shape, kind, np.zeros(shape, np.float32), order)
        tensor.copyToHostTensor(host)
        return np.array(host.getNumpyData()).reshape(shape)

    def answer():
        feed()  # a run may reuse the memory of its inputs
        net.runSession(session)
        return [fetch(outputs[name]) for name in results]

    feed()
    return lambda: net.runSession(session), answer


def ncnn(model, threads, values):
    import ncnn as engine

    net = engine.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copy(model, folder / "model.onnx")
        # the program inside the package: its wrapper would import torch
        package = importlib.util.find_spec("pnnx").submodule_search_locations[0]
        convert([pathlib.Path(package) / "pnnx", "model.onnx", "fp16=0"], folder)
        if net.load_param(str(folder / "model.ncnn.param")) or net.load_model(str(folder / "model.ncnn.bin")):
            raise SystemExit("ncnn cannot read the model")
    inputs, outputs = list(net.input_names()), list(net.output_names())
    images = [engine.Mat(value[0]).clone() for value in values]

    def run():
        extractor = net.create_extractor()
        for name, image in zip(inputs, images):
            extractor.input(name, image)
        return [extractor.extract(name)[1] for name in outputs]

    return run, lambda: [np.array(result) for result in run()]


ENGINES = {"onnxruntime": onnxruntime, "openvino": openvino, "mnn": mnn, "ncnn": ncnn}


# --- one engine in a process of its own ----------------------------------------------------------------------


def worker(arguments):
    values = inputs_of(arguments.models[0], arguments.seed)
    run, outputs = ENGINES[arguments.worker](arguments.models[0], arguments.threads, values)
    run()
    np.savez(arguments.outputs, *outputs())
    print("ready", flush=True)
    for line in sys.stdin:
        run()
        best, start = float("inf"), perf_counter()
        while perf_counter() - start < float(line):
            before = perf_counter_ns()
            run()
            best = min(best, perf_counter_ns() - before)
        print(best, flush=True)


class Peer:
    def __init__(self, engine, model, arguments, folder):
        self.answers = folder / f"{engine}.npz"
        command = [sys.executable, __file__, str(model), "--worker", engine, "--outputs", str(self.answers)]
        command += ["--threads", str(arguments.threads), "--seed", str(arguments.seed)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # some engines greet first
        if not any(line.strip() == "ready" for line in iter(self.process.stdout.readline, "")):
            raise SystemExit(f"{engine} cannot run {model}")
        os.kill(self.process.pid, signal.SIGSTOP)

    def outputs(self):
        with np.load(self.answers) as arrays:
            return [arrays[name] for name in arrays.files]

    def turn(self, seconds):
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        best = float(self.process.stdout.readline())
        os.kill(self.process.pid, signal.SIGSTOP)
        return best

    def end(self):
        self.process.kill()
        self.process.wait()


class Sinew:
    """The command line program, a process per turn: it times the forward call alone."""

    def __init__(self, program, model, arguments, folder):
        raw = folder / "input.raw"
        np.concatenate([value.ravel() for value in inputs_of(model, arguments.seed)]).tofile(raw)
        self.answers = folder / "output.raw"
        self.command = [program, "bench", str(model), "--threads", str(arguments.threads), "--json"]
        self.command += ["--raw-input", str(raw), "--raw-output", str(self.answers)] + arguments.options.split()
        self.turn(0.001)

    def outputs(self):
        return np.fromfile(self.answers, np.float32)

    def turn(self, seconds):
        answer = subprocess.run(self.command + ["--seconds", str(seconds)], stdout=subprocess.PIPE, check=True)
        return json.loads(answer.stdout)["min_ns"]

    def end(self):
        pass


# --- the comparison --------------------------------------------------------------------------------------------


def inputs_of(model, seed):
    """Numbers in 0..1 for each input of f32, open extents taken as 1."""
    import onnxruntime as engine

    random = np.random.default_rng(seed)
    session = engine.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    shapes = [[n if isinstance(n, int) else 1 for n in port.shape] for port in session.get_inputs()]
    return [random.random(shape, np.float32) for shape in shapes]


def ports_of(model, kind):
    import onnxruntime as engine

    session = engine.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return [port.name for port in getattr(session, kind)()]


def difference(found, wanted):
    """The largest difference of outputs, one after the other, as a share of each output's largest magnitude."""
    worst, at = 0.0, 0
    for output in wanted:
        own = found[at : at + output.size]
        at += output.size
        largest = max(float(np.abs(output).max()), np.finfo(np.float32).tiny)
        worst = max(worst, float(np.abs(own - output.ravel()).max()) / largest)
    if at != found.size:
        raise SystemExit(f"{found.size} numbers, and {at} from onnxruntime")
    return worst


def compare(model, arguments):
    engines = arguments.engines.split(",")
    if "onnxruntime" not in engines:
        engines.insert(0, "onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        runners = {}
        try:
            for engine in engines:
                runners[engine] = Peer(engine, model, arguments, folder)
            runners["sinew"] = Sinew(arguments.program, model, arguments, folder)
            wanted = runners["onnxruntime"].outputs()
            worst = difference(runners["sinew"].outputs(), wanted)
            for engine in engines:
                found = np.concatenate([output.ravel() for output in runners[engine].outputs()])
                if difference(found, wanted) > PEER_TOLERANCE:
                    raise SystemExit(f"{engine} computes something else from {model}")
            best = dict.fromkeys(runners, float("inf"))
            for _ in range(0 if arguments.check else arguments.rounds):
                for name, runner in runners.items():
                    best[name] = min(best[name], runner.turn(arguments.seconds))
        finally:
            # workers are stopped between turns, and would stay so
            for runner in runners.values():
                runner.end()
    agrees = worst <= TOLERANCE
    line = f"{model.stem:28s} difference {worst:.1e}{'' if agrees else ' TOO LARGE'}"
    if not arguments.check:
        peer = min(time for name, time in best.items() if name != "sinew")
        line += "".join(f"  {name} {time / 1e6:.3f} ms" for name, time in best.items())
        line += f"  best peer / sinew {peer / best['sinew']:.2f}"
    print(line, flush=True)
    return agrees


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path, metavar="MODEL.onnx")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--program", default="target/release/sinew")
    parser.add_argument("--options", default="", help="more options for `sinew bench`")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="compare the answers only")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--outputs", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)
    return 0 if all([compare(model, arguments) for model in arguments.models]) else 1


if __name__ == "__main__":
    sys.exit(main())
