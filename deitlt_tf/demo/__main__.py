"""Try a finished run in a browser: drop an image, see the answers of CLS, DIST and mean, and where the tokens look.

    python -m deitlt_tf.demo --workdir=runs/first [--weights=ema] [--port=8000] [--open]

serves a page to browsers of this machine until Ctrl+C. The network that --weights names (student, ema, teacher) runs in
the browser, as ONNX, and so does the evaluation view, so images never leave the browser. The demo needs no data, no GPU
and no network.
"""

import contextlib
import json
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from deitlt_tf.demo.server import Content, Server
from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

if TYPE_CHECKING:
    from deitlt_tf.runs.finished import Finished

TAKES = ("weights", "threshold", "request_megapixels", "host", "port", "open")

THRESHOLD = 0.9  # from which an answer at a rank is sure, where none was chosen

PAGE = Path(__file__).parent / "page"

KINDS = {  # media types by suffix
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}


def main(
    recipe: Recipe, *, weights: str, threshold: str, request_megapixels: float, host: str, port: int, open: bool
) -> None:
    with Server(host, port) as server, contextlib.suppress(KeyboardInterrupt):
        max_pixels = int(request_megapixels * 1e6)
        server.contents |= contents(recipe, weights=weights, max_pixels=max_pixels, threshold=threshold)
        print(f"The page is at {server.url}; press Ctrl+C to stop.", flush=True)
        if open:
            webbrowser.open(server.url)
        server.serve_forever()


def contents(recipe: Recipe, *, weights: str, max_pixels: int, threshold: str = "") -> dict[str, Content]:
    """{"/path": Content} of the page, its runtime, the network and facts about it.

    weights: key of `runs.finished.FILES`. max_pixels: largest image that the page accepts.
    threshold: see `first_threshold`.
    """
    from deitlt_tf.demo import facts, runtime
    from deitlt_tf.evaluation import probes
    from deitlt_tf.runs import finished

    network = finished.load(recipe.run.folder, weights=weights)
    with command_line.extra("demo"):
        from deitlt_tf.serving import onnx_graph, served
    graph = onnx_graph.build(
        network.model,
        heads="all" if isinstance(network.model.output, dict) else "cls",
        with_rollout=probes.has_attention(network.model),
    )
    network = network._replace(taxonomy=served.taxonomy_of(recipe, network))
    _, eval_resize = served.evaluation_view(recipe, network.model, weights=weights)
    network_facts = facts.facts(
        network,
        run=recipe.run.folder.resolve().name,
        weights=weights,
        eval_resize=eval_resize,
        max_pixels=min(recipe.data.max_pixels, max_pixels),
        threshold=first_threshold(threshold, recipe, network, weights=weights),
    )
    bodies = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.is_file()}
    bodies["facts.json"] = json.dumps(network_facts).encode()
    bodies["network.onnx"] = graph.SerializeToString()
    by_path = {f"/{name}": Content(KINDS[Path(name).suffix], body) for name, body in bodies.items()}
    for name in runtime.FILES:
        by_path[f"/vendor/{name}"] = Content(KINDS[Path(name).suffix], runtime.read(name), gzipped=True)
    return by_path | {"/": by_path["/index.html"]}


def first_threshold(threshold: str, recipe: Recipe, network: "Finished", *, weights: str) -> float | None:
    """The threshold at which the page's slider stands at first; None without a taxonomy.

    threshold: of the command line, see `served.threshold_of`; "": what `evaluate` has chosen, or else THRESHOLD.
    """
    from deitlt_tf.serving import served

    head = "mean" if isinstance(network.model.output, dict) else "cls"
    folder, taxonomy = recipe.run.folder, network.taxonomy
    if threshold or taxonomy is None:
        return served.threshold_of(threshold, folder, weights=weights, head=head, taxonomy=taxonomy)
    with contextlib.suppress(ValueError):
        return served.threshold_of("auto", folder, weights=weights, head=head, taxonomy=taxonomy)
    return THRESHOLD


def program() -> None:
    command_line.program(main, __doc__, from_workdir=True, takes=TAKES)


if __name__ == "__main__":
    program()
