"""A finished run as an ONNX file, checked against Keras on the test set before it gets its name.

    python -m deitlt_tf.to_onnx --workdir=runs/first [--out=first.onnx] [--quantize=int8] [--fp16]

writes the network that --weights names (student, ema, teacher): opset 17, only standard operators, exact GELU.

    images           uint8 [batch, S, S, 3] (--input_type=float32: the same pixels, 0..255); normalisation is inside
    logits_cls, logits_dist, logits_mean   float32 [batch, C]; --heads chooses, --prior adjusts the mean's
    probabilities    float32 [batch, C], of the mean (of the one head that --heads names)

Class names, training counts and the evaluation view are in the file's metadata, as JSON.
--quantize=int8 and --fp16 write NAME.int8.onnx and NAME.fp16.onnx beside it: weights of 8 bits per output channel with
activations quantised as they come (transformers only; sums may saturate on a CPU without VNNI), or half precision.
A file is a copy of the run: written again, it replaces the one before. Without data to check on: --check_images=0.
"""

from types import SimpleNamespace

from deitlt_tf.recipes import command_line

TAKES = ("out", "weights", "heads", "prior", "quantize", "fp16", "input_type", "check_images")


def main(flags: SimpleNamespace) -> None:
    import contextlib

    from tqdm import tqdm

    from deitlt_tf.runs.files import replacing
    from deitlt_tf.serving.served import images_to_check, load_served, metadata, path_of

    with command_line.extra("export"):
        import onnx

        from deitlt_tf.serving import check, onnx_files, onnx_graph

    served = load_served(flags)
    out = path_of(flags, suffix=".onnx")
    names = {"float32": out}
    if flags.quantize == "int8":
        names["int8"] = out.with_suffix(".int8.onnx")
    if flags.fp16:
        names["fp16"] = out.with_suffix(".fp16.onnx")
    images = images_to_check(flags, served)

    with contextlib.ExitStack() as stack:
        paths = {kind: stack.enter_context(replacing(path)) for kind, path in names.items()}
        model = onnx_graph.build(
            served.model,
            heads=served.heads,
            adjustment=served.adjustment,
            input_type=flags.input_type,
            metadata=metadata(flags, served),
        )
        for kind, path in tqdm(paths.items(), desc="writing", leave=False):
            onnx_files.WRITERS[kind](model, path)
            onnx.checker.check_model(str(path), full_check=True)
        check.report(served, images, {kind: (path, onnx_files.runner(path)) for kind, path in paths.items()})
    for path in names.values():
        print(f"{path} written")


if __name__ == "__main__":
    command_line.program(main, __doc__, from_workdir=True, takes=TAKES)
