"""Export a finished run as a LiteRT (.tflite) file, after a comparison with Keras on the test set.

    python -m deitlt_tf.to_litert --workdir=runs/first [--out=first.tflite] [--quantize=int8]

writes the network that --weights names (student, ema, teacher), with one signature, `serving_default`:

    images           uint8 [batch, S, S, 3]; with --input_type=float32 the same pixels, 0..255. The file normalises them
    logits_cls, logits_dist, logits_mean   float32 [batch, C]; --heads chooses among them, --prior adjusts the mean
    probabilities    float32 [batch, C], of the mean, or of the only head that --heads names
    least_risk, sure_rank, sure_node, sure_probability   [batch], with --threshold: docs/how_to/taxonomy.md

labels.txt and the metadata are attached to the file as a zip archive.
--quantize=int8 also writes NAME.int8.tflite: 8-bit weights, activations quantised at run time.
An export replaces earlier files of the same name. Without data to check on, use --check_images=0.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

TAKES = ("out", "weights", "heads", "prior", "threshold", "quantize", "input_type", "check_images")


def main(
    recipe: Recipe,
    *,
    out: str,
    weights: str,
    heads: str,
    prior: str,
    threshold: str,
    quantize: str,
    input_type: str,
    check_images: int,
) -> None:
    from deitlt_tf.serving.served import images_to_check, load_served, metadata, path_of

    with command_line.extra("export"):
        from deitlt_tf.serving import litert_files

    served = load_served(recipe, weights=weights, heads=heads, prior=prior, threshold=threshold)
    path = path_of(recipe, weights=weights, out=out, suffix=".tflite")
    files = {"float32": path}
    if quantize == "int8":
        files["int8"] = path.with_suffix(".int8.tflite")
    images = images_to_check(recipe, served, weights=weights, check_images=check_images)
    notes = metadata(served, weights=weights, prior=prior)
    litert_files.write_checked(served, files, images=images, input_type=input_type, metadata=notes)


def program() -> None:
    command_line.program(main, __doc__, from_workdir=True, takes=TAKES)


if __name__ == "__main__":
    program()
