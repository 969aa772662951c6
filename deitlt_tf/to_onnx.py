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

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

TAKES = ("out", "weights", "heads", "prior", "quantize", "fp16", "input_type", "check_images")


def main(
    recipe: Recipe,
    *,
    out: str,
    weights: str,
    heads: str,
    prior: str,
    quantize: str,
    fp16: bool,
    input_type: str,
    check_images: int,
) -> None:
    from deitlt_tf.serving.served import images_to_check, load_served, metadata, path_of

    with command_line.extra("export"):
        from deitlt_tf.serving import onnx_files

    served = load_served(recipe, weights=weights, heads=heads, prior=prior)
    path = path_of(recipe, weights=weights, out=out, suffix=".onnx")
    files = {"float32": path}
    if quantize == "int8":
        files["int8"] = path.with_suffix(".int8.onnx")
    if fp16:
        files["fp16"] = path.with_suffix(".fp16.onnx")
    images = images_to_check(recipe, served, weights=weights, check_images=check_images)
    notes = metadata(served, weights=weights, prior=prior)
    onnx_files.write_checked(served, files, images=images, input_type=input_type, metadata=notes)


def program() -> None:
    command_line.program(main, __doc__, from_workdir=True, takes=TAKES)


if __name__ == "__main__":
    program()
