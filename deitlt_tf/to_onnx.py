"""Export a finished run as an ONNX file, after a comparison with Keras on the test set.

    python -m deitlt_tf.to_onnx --workdir=runs/first [--out=first.onnx] [--quantize=int8] [--fp16]

writes the network that --weights names (student, ema, teacher) with opset 17, standard operators and exact GELU:

    images           uint8 [batch, S, S, 3]; with --input_type=float32 the same pixels, 0..255. The file normalises them
    logits_cls, logits_dist, logits_mean   float32 [batch, C]; --heads chooses among them, --prior adjusts the mean
    probabilities    float32 [batch, C], of the mean, or of the only head that --heads names

With --threshold, it also answers by the ranks of the taxonomy, where the classes have one, [batch] each:

    least_risk       int64, the class with the smallest expected height
    sure_rank        int64, the finest rank whose most probable node reaches the threshold; R, the number of ranks: none
    sure_node        int64, that node; -1: none
    sure_probability float32, its probability

The metadata of the file has class names, taxonomy, training counts and the evaluation view, as JSON.
--quantize=int8 also writes NAME.int8.onnx, for transformers only: 8-bit weights with one scale per output channel, and
activations quantised at run time. On a CPU without VNNI, its sums may saturate.
--fp16 also writes NAME.fp16.onnx, in half precision.
An export replaces earlier files of the same name. Without data to check on, use --check_images=0.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

TAKES = ("out", "weights", "heads", "prior", "threshold", "quantize", "fp16", "input_type", "check_images")


def main(
    recipe: Recipe,
    *,
    out: str,
    weights: str,
    heads: str,
    prior: str,
    threshold: str,
    quantize: str,
    fp16: bool,
    input_type: str,
    check_images: int,
) -> None:
    from deitlt_tf.serving.served import images_to_check, load_served, metadata, path_of

    with command_line.extra("export"):
        from deitlt_tf.serving import onnx_files

    served = load_served(recipe, weights=weights, heads=heads, prior=prior, threshold=threshold)
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
