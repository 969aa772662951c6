"""Latency of an exported student: onnxruntime float32 and int8, Keras, and timm's PyTorch model of the same size.

    python -m pip install -e ".[cpu,export,bench]"
    python benchmarks/onnx_latency.py --model=deit_tiny --image_size=224 --seconds=60

Every side gets the same bytes, uint8 [N, S, S, 3], normalises them itself and returns logits. The sides take turns. Of
the two calls of a turn the second counts, because by then the threads of the side before have gone to sleep. It prints
the median, the middle half of all calls, the median processor time of all threads, and how many times faster a side is
than PyTorch eager (than Keras, if torch or timm is missing). On a busy machine compare processor times of --threads=1:
the threads of PyTorch wait for each other by spinning, and a thread that has lost its core makes the others spin.

float32, int8   as `onnx_files.runner` answers: a batch of several images by parts, one thread for each part
whole           all threads compute the batch together: one `session.run`, as most callers do it
tf2onnx         the graph that the converter makes of the same network, float32, by parts; prints nodes and seconds

Weights are random. They do not change the time, and say nothing about accuracy, which `export/to_onnx.py` prints.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Side = Callable[[np.ndarray], object]


def main() -> None:
    options = arguments()
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)  # it logs every step of its work
    import tensorflow as tf

    from deitlt_tf import models
    from deitlt_tf.serving import check

    if (load := os.getloadavg()[0]) > 0.5:
        print(f"note: the machine is busy (load {load:.1f}); compare processor times of --threads=1")
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    size = options.image_size
    model = models.build(options.model, num_classes=options.classes, image_size=size, patch_size=options.patch_size)
    with tempfile.TemporaryDirectory() as folder:
        sides = onnx_sides(model, Path(folder), threads=options.threads)
    sides |= {"Keras": keras_side(model)} | torch_side(model, threads=options.threads)
    pixels = np.random.default_rng(0).integers(0, 256, (max(options.batches), size, size, 3), dtype=np.uint8)
    for batch in options.batches:
        calls = {name: lambda side=side, batch=batch: side(pixels[:batch]) for name, side in sides.items()}
        times = check.alternate(calls, rounds=options.turns, seconds=options.seconds)
        print(table(times, title=f"{options.model}, {size} px, batch {batch}, {options.threads} threads"))


def arguments() -> argparse.Namespace:
    # argparse, because the recipes of deitlt_tf define absl flags of the same names.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_tiny", help="Model of deitlt_tf.models, one of deit_*.")
    parser.add_argument("--image_size", type=int, default=224, help="Side of the images in pixels.")
    parser.add_argument("--patch_size", type=int, default=16, help="Side of a patch in pixels.")
    parser.add_argument("--classes", type=int, default=1000, help="Number of classes.")
    parser.add_argument("--batches", type=whole_numbers, default=[1, 32], help="Batch sizes to measure, e.g. 1,32.")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="Threads of every side.")
    parser.add_argument("--seconds", type=float, default=60, help="Seconds for each batch size, after --turns turns.")
    parser.add_argument("--turns", type=int, default=5, help="Smallest number of turns of every side.")
    return parser.parse_args()


def whole_numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def onnx_sides(model, folder: Path, *, threads: int) -> dict[str, Side]:
    """onnxruntime on our graph, and on that of tf2onnx if it is installed."""
    from deitlt_tf.serving import onnx_files, onnx_graph

    start = time.process_time()
    graph = onnx_graph.build(model, heads="all")
    print(f"our graph: {len(graph.graph.node)} nodes, {time.process_time() - start:.1f} s of processor time")
    sides = {}
    for kind in ("float32", "int8"):
        path = folder / f"{kind}.onnx"
        onnx_files.WRITERS[kind](graph, path)
        sides[kind] = onnx_files.runner(path, threads=threads)
        sides[f"{kind}, whole"] = onnx_files.runner(path, threads=threads, whole=True)
    if write_converted(model, folder / "tf2onnx.onnx"):
        sides["tf2onnx"] = onnx_files.runner(folder / "tf2onnx.onnx", threads=threads)
    return sides


def write_converted(model, path: Path) -> bool:
    """Write the graph that tf2onnx makes of the same function; False if it is not installed."""
    try:
        import tf2onnx
    except ModuleNotFoundError:
        print("tf2onnx is not installed: that side is left out")
        return False
    import onnx
    import tensorflow as tf

    from deitlt_tf.serving.served import answers

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="images")]
    function = tf.function(
        lambda images: answers(model(tf.cast(images, tf.float32), training=False), heads="all"),
        input_signature=signature,
    )
    start = time.process_time()
    graph, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    print(f"graph of tf2onnx: {len(graph.graph.node)} nodes, {time.process_time() - start:.1f} s of processor time")
    onnx.save(graph, path)
    return True


def keras_side(model) -> Side:
    from deitlt_tf.serving import check
    from deitlt_tf.serving.served import Served

    names = tuple(map(str, range(model.output["cls"].shape[-1])))
    served = Served(
        model=model, class_names=names, class_counts=None, heads="all", adjustment=None,
        image_size=model.input_shape[1], eval_resize=0, max_pixels=0,
    )  # fmt: skip
    return check.keras_answer(served)


def torch_side(model, *, threads: int) -> dict[str, Side]:
    """timm's distilled ViT of the same size, eager, with the same normalisation; no side without torch and timm."""
    try:
        import torch
        from timm.models.deit import VisionTransformerDistilled
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: PyTorch is left out")
        return {}
    from deitlt_tf.models import vit

    blocks = [layer for layer in model.layers if isinstance(layer, vit.Block)]
    torch.set_num_threads(threads)
    network = VisionTransformerDistilled(
        img_size=model.input_shape[1],
        patch_size=vit.patch_size(model),
        num_classes=model.output["cls"].shape[-1],
        embed_dim=blocks[0].dim,
        depth=len(blocks),
        num_heads=blocks[0].attn.num_heads,
    ).eval()
    ours, theirs = model.count_params(), sum(weight.numel() for weight in network.parameters())
    assert ours == theirs, f"two different networks: {ours} and {theirs} weights"
    normalize = model.get_layer("normalize")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalize.mean, normalize.std))

    @torch.inference_mode()
    def answer(pixels: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        return network((images / 255 - mean) / std)

    return {"PyTorch timm eager": answer}


def table(times: dict[str, list[tuple[float, float]]], *, title: str) -> str:
    reference = "PyTorch timm eager" if "PyTorch timm eager" in times else "Keras"
    milliseconds = {name: 1e3 * np.array(calls).T for name, calls in times.items()}
    width = max(map(len, times))
    lines = [
        f"{title}, {len(times[reference])} turns",
        f"{'':<{width}}       ms    middle half   processor ms   x {reference}",
    ]
    for name, (wall, processor) in milliseconds.items():
        low, median, high = np.percentile(wall, [25, 50, 75])
        ratio = np.median(milliseconds[reference][0]) / median
        lines.append(f"{name:<{width}} {median:8.1f} {low:7.1f}-{high:<7.1f} {np.median(processor):12.1f} {ratio:8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
