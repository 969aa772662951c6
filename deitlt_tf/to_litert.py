"""A finished run as a LiteRT (.tflite) file, checked against Keras on the test set before it gets its name.

    python -m deitlt_tf.to_litert --workdir=runs/first [--out=first.tflite] [--quantize=int8]

writes the network that --weights names (student, ema, teacher), with one signature, `serving_default`:

    images           uint8 [batch, S, S, 3] (--input_type=float32: the same pixels, 0..255); normalisation is inside
    logits_cls, logits_dist, logits_mean   float32 [batch, C]; --heads chooses, --prior adjusts the mean's
    probabilities    float32 [batch, C], of the mean (of the one head that --heads names)

labels.txt and the metadata are attached to the file as a zip archive. --quantize=int8 writes NAME.int8.tflite beside
it: weights of 8 bits, activations quantised as they come. Written again, a file replaces the one before.
Without data to check on: --check_images=0.
"""

from types import SimpleNamespace

from deitlt_tf.recipes import command_line

TAKES = ("out", "weights", "heads", "prior", "quantize", "input_type", "check_images")


def main(flags: SimpleNamespace) -> None:
    import contextlib

    from tqdm import tqdm

    from deitlt_tf.runs.files import replacing
    from deitlt_tf.serving.served import images_to_check, load_served, metadata, path_of

    with command_line.extra("export"):
        from deitlt_tf.serving import check, litert_files

    served = load_served(flags)
    out = path_of(flags, suffix=".tflite")
    names = {"float32": out}
    if flags.quantize == "int8":
        names["int8"] = out.with_suffix(".int8.tflite")
    images = images_to_check(flags, served)
    common = {"input_type": flags.input_type, "metadata": metadata(flags, served)}

    with contextlib.ExitStack() as stack:
        paths = {kind: stack.enter_context(replacing(path)) for kind, path in names.items()}
        for kind, path in tqdm(paths.items(), desc="writing", leave=False):
            litert_files.write(served, path, kind=kind, **common)
        check.report(served, images, {kind: (path, litert_files.runner(path)) for kind, path in paths.items()})
    for path in names.values():
        print(f"{path} written")


if __name__ == "__main__":
    command_line.program(main, __doc__, from_workdir=True, takes=TAKES)
