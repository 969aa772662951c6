"""How fast an exported student answers: onnxruntime float32 and int8, Keras, and timm's PyTorch model of the same size.

    python -m pip install -e ".[cpu,export,bench]"
    python benchmarks/onnx_latency.py --model=deit_tiny --image_size=224 --seconds=60

Every side gets the same bytes, uint8 [N, S, S, 3], normalises them itself and answers logits. The sides take turns; of
each turn the second call counts, when the threads of the side before have gone to sleep. Printed: the median, the
middle half of all calls, the median processor time of all threads, and how many times faster than PyTorch eager (than
Keras, where torch and timm are missing). On a busy machine compare processor times of --threads=1: PyTorch's threads
wait for each other by spinning, and one that has lost its core makes the others spin for long.

float32, int8   as `onnx_files.runner` answers: several images by parts, one thread each
whole           all threads work off the batch together: one `session.run`, as most callers do it
tf2onnx         the converter's graph of the same network, float32, by parts; with nodes and seconds of both ways

Weights are random: they change no time, and say nothing about accuracy, which `export/to_onnx.py` prints.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags, logging

# The export programs are scripts: their modules lie in their own folder.
sys.path.insert(0, str(Path(__file__).parent.parent / "export"))

MODEL = flags.DEFINE_string("model", "deit_tiny", "A deit_* of deitlt_tf.models.")
IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the images, pixels.")
PATCH_SIZE = flags.DEFINE_integer("patch_size", 16, "Side of a patch, pixels.")
CLASSES = flags.DEFINE_integer("classes", 1000, "Number of classes.")
BATCHES = flags.DEFINE_list("batches", ["1", "32"], "Images at a time.")
THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Of every side.")
SECONDS = flags.DEFINE_float("seconds", 60, "For each batch size, but at least --turns.")
TURNS = flags.DEFINE_integer("turns", 5, "Turns of every side at least.", lower_bound=5)

Side = Callable[[np.ndarray], object]


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # tf2onnx tells what it does, step by step
    import tensorflow as tf

    from deitlt_tf import models
    from deitlt_tf.serving import check

    if (load := os.getloadavg()[0]) > 0.5:
        print(f"note: the machine is busy (load {load:.1f}): compare processor times, with --threads=1")
    tf.config.threading.set_intra_op_parallelism_threads(THREADS.value)
    model = models.build(
        MODEL.value, num_classes=CLASSES.value, image_size=IMAGE_SIZE.value, patch_size=PATCH_SIZE.value
    )
    with tempfile.TemporaryDirectory() as folder:
        sides = onnx_sides(model, Path(folder)) | {"Keras": keras_side(model)} | torch_side(model)
    size = IMAGE_SIZE.value
    pixels = np.random.default_rng(0).integers(0, 256, (max(map(int, BATCHES.value)), size, size, 3), dtype=np.uint8)
    for batch in map(int, BATCHES.value):
        calls = {name: lambda side=side, batch=batch: side(pixels[:batch]) for name, side in sides.items()}
        taken = check.alternate(calls, rounds=TURNS.value, seconds=SECONDS.value)
        print(table(taken, title=f"{MODEL.value}, {size} px, batch {batch}, {THREADS.value} threads"))


def onnx_sides(model, folder: Path) -> dict[str, Side]:
    from deitlt_tf.serving import onnx_files, onnx_graph

    start = time.process_time()
    graph = onnx_graph.build(model, heads="all")
    print(f"our graph: {len(graph.graph.node)} nodes, {time.process_time() - start:.1f} s of processor time")
    sides = {}
    for kind in ("float32", "int8"):
        path = folder / f"{kind}.onnx"
        onnx_files.WRITERS[kind](graph, path)
        sides[kind] = onnx_files.runner(path, threads=THREADS.value)
        sides[f"{kind}, whole"] = onnx_files.runner(path, threads=THREADS.value, whole=True)
    if converted(model, folder / "tf2onnx.onnx"):
        sides["tf2onnx"] = onnx_files.runner(folder / "tf2onnx.onnx", threads=THREADS.value)
    return sides


def converted(model, path: Path) -> bool:
    """Writes the graph that tf2onnx makes of the same function; False where it is not installed."""
    try:
        import tf2onnx
    except ModuleNotFoundError:
        print("without tf2onnx: it is not installed")
        return False
    import onnx
    import tensorflow as tf

    from deitlt_tf.serving.served import answers

    signature = [tf.TensorSpec((None, IMAGE_SIZE.value, IMAGE_SIZE.value, 3), tf.uint8, name="images")]
    function = tf.function(
        lambda images: answers(model(tf.cast(images, tf.float32), training=False), heads="all"),
        input_signature=signature,
    )
    start = time.process_time()
    graph, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    print(f"tf2onnx's: {len(graph.graph.node)} nodes, {time.process_time() - start:.1f} s of processor time")
    onnx.save(graph, path)
    return True


def keras_side(model) -> Side:
    from deitlt_tf.serving import check
    from deitlt_tf.serving.served import Served

    names = tuple(map(str, range(CLASSES.value)))
    return check.keras_answer(Served(model, names, None, "all", None, IMAGE_SIZE.value, 0, 0))


def torch_side(model) -> dict[str, Side]:
    """timm's distilled ViT of the same size, eager, normalising by the same numbers; none without torch and timm."""
    try:
        import torch
        from timm.models.deit import VisionTransformerDistilled
    except ModuleNotFoundError as error:
        print(f"without PyTorch: {error.name} is not installed")
        return {}
    from deitlt_tf.models import vit

    blocks = [layer for layer in model.layers if isinstance(layer, vit.Block)]
    torch.set_num_threads(THREADS.value)
    network = VisionTransformerDistilled(
        img_size=IMAGE_SIZE.value,
        patch_size=PATCH_SIZE.value,
        num_classes=CLASSES.value,
        embed_dim=blocks[0].dim,
        depth=len(blocks),
        num_heads=blocks[0].attn.num_heads,
    ).eval()
    ours, theirs = model.count_params(), sum(weight.numel() for weight in network.parameters())
    assert ours == theirs, f"not the same network: {ours} and {theirs} weights"
    normalize = model.get_layer("normalize")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalize.mean, normalize.std))

    @torch.inference_mode()
    def answer(pixels: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        return network((images / 255 - mean) / std)

    return {"PyTorch timm eager": answer}


def table(taken: dict[str, list[tuple[float, float]]], *, title: str) -> str:
    reference = "PyTorch timm eager" if "PyTorch timm eager" in taken else "Keras"
    milliseconds = {name: 1e3 * np.array(calls).T for name, calls in taken.items()}
    width = max(map(len, taken))
    lines = [
        f"{title}, {len(taken[reference])} turns",
        f"{'':<{width}}       ms    middle half   processor ms   x {reference}",
    ]
    for name, (wall, processor) in milliseconds.items():
        low, median, high = np.percentile(wall, [25, 50, 75])
        ratio = np.median(milliseconds[reference][0]) / median
        lines.append(f"{name:<{width}} {median:8.1f} {low:7.1f}-{high:<7.1f} {np.median(processor):12.1f} {ratio:8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
