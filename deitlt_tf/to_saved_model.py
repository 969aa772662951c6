"""Export a finished run as a SavedModel for TensorFlow Serving, as a new version in OUT/<version>/.

    python -m deitlt_tf.to_saved_model --workdir=runs/first [--out=models/first]
    docker compose -f models/first/docker-compose.yml up

writes the network that --weights names (student, ema, teacher) with three signatures:

    serving_default   images, uint8 [N, S, S, 3]   -> probabilities, logits_cls, logits_dist, logits_mean, classes
    bytes             image_bytes, string [N]      -> the same, top_labels and top_probabilities (--top_k)
    features          images, uint8 [N, S, S, 3]   -> features_cls, features_dist

`bytes` takes JPEG, PNG, WebP or BMP files and brings them into the evaluation view. A request may have up to
--request_images of them, with up to --request_megapixels together. A bad image fails its own request, with all images
of that request, and no other.
With --threshold, the first two also answer by the ranks of the taxonomy: least_risk, sure_rank, sure_node and
sure_probability as in `to_onnx`, and `bytes` gives the names sure_label and sure_rank_name.
OUT also gets docker-compose.yml and batching.config. The export needs tensorflow-serving-api:
`python -m pip install --no-deps tensorflow-serving-api`.
"""

from pathlib import Path

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

TAKES = ("out", "weights", "heads", "prior", "threshold", "top_k", "request_megapixels", "request_images")


def main(
    recipe: Recipe,
    *,
    out: str,
    weights: str,
    heads: str,
    prior: str,
    threshold: str,
    top_k: int,
    request_megapixels: float,
    request_images: int,
) -> None:
    from deitlt_tf.serving import saved_model, tf_serving
    from deitlt_tf.serving.served import load_served

    workdir = recipe.run.folder
    folder = Path(out) if out else workdir / "serving" / workdir.resolve().name
    name = tf_serving.model_name(folder)
    served = load_served(recipe, weights=weights, heads=heads, prior=prior, threshold=threshold)
    max_pixels = min(served.max_pixels, int(request_megapixels * 1e6))
    functions = saved_model.signatures(served, top_k=top_k, max_pixels=max_pixels, max_images=request_images)
    requests = saved_model.examples(functions, size=served.image_size, max_pixels=max_pixels, max_images=request_images)
    with tf_serving.unfinished(folder) as temporary:
        print(f"writing signatures {', '.join(functions)}")
        tf_serving.write_warm_up(temporary, model=name, requests=requests)
        saved_model.write(functions, temporary, served=served)
        print("reading them back")
        difference = saved_model.check(functions, temporary, requests)
        tf_serving.write_server_files(folder, model=name, most_images=request_images)
        version = tf_serving.publish(temporary, folder)
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    print(f"{version}: {size / 1e6:.1f} MB, answers within {difference:.0e} of {weights}")
    print(f"to serve it: docker compose -f {folder / tf_serving.COMPOSE} up")


def program() -> None:
    command_line.program(main, __doc__, from_workdir=True, takes=TAKES)


if __name__ == "__main__":
    program()
