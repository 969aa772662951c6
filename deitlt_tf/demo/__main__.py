"""A page on which a person tries a finished run: drop an image, see what CLS, DIST and mean say, and where they look.

    python -m deitlt_tf.demo --workdir=runs/first [--weights=ema] [--port=8000] [--open]

serves it to browsers of this machine until Ctrl+C. The network that --weights names (student, ema, teacher) runs in the
browser, as ONNX, and so does the evaluation view: images never leave it. Needs no data, no GPU and no network.
"""

import contextlib
import json
import webbrowser
from pathlib import Path
from types import SimpleNamespace

from deitlt_tf.recipes import command_line

TAKES = ("weights", "request_megapixels", "host", "port", "open")


PAGE = Path(__file__).parent / "page"


KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}


def main(flags: SimpleNamespace) -> None:
    from deitlt_tf.demo.server import Server

    with Server(flags.host, flags.port) as server, contextlib.suppress(KeyboardInterrupt):
        server.contents |= contents(flags)
        print(f"{server.url} is the page; Ctrl+C ends it.", flush=True)
        if flags.open:
            webbrowser.open(server.url)
        server.serve_forever()


def contents(flags: SimpleNamespace) -> dict:
    """{"/path": local_server.Content} of the page, its runtime, the network and what is known of it."""
    from deitlt_tf.demo import runtime
    from deitlt_tf.demo.server import Content
    from deitlt_tf.evaluation import probes
    from deitlt_tf.runs import finished

    found = finished.load(Path(flags.workdir), weights=flags.weights)
    with command_line.extra("demo"):
        from deitlt_tf.serving import onnx_graph
    network = onnx_graph.build(
        found.model,
        heads="all" if isinstance(found.model.output, dict) else "cls",
        with_rollout=probes.has_attention(found.model),
    )
    made = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.is_file()}
    made["facts.json"] = json.dumps(facts(found, flags)).encode()
    made["network.onnx"] = network.SerializeToString()
    served = {f"/{name}": Content(KINDS[Path(name).suffix], body) for name, body in made.items()}
    for name in runtime.FILES:
        served[f"/vendor/{name}"] = Content(KINDS[Path(name).suffix], runtime.read(name), gzipped=True)
    return served | {"/": served["/index.html"]}


def facts(found, flags: SimpleNamespace) -> dict:
    """What the page has to know of a `finished.Finished` network, as JSON can hold it."""
    from deitlt_tf.evaluation import metrics, probes, tables
    from deitlt_tf.models import interface
    from deitlt_tf.recipes.recipe import max_pixels_of, of_network

    model, names, counts = found
    heads = list(interface.heads(model.output))
    described = f"{model.name}, {model.count_params():,} weights, {len(names)} classes ({flags.weights})"
    notes, groups = [], None
    if counts is None:
        notes.append("This run does not say how many training images each class has.")
    else:
        members = metrics.groups(counts, "paper")
        groups = [next(group for group, found in members.items() if label in found) for label in range(len(names))]
        notes.append(tables.describe_groups(counts, "paper").removeprefix("paper: ").capitalize() + ".")
    if len(heads) == 1:
        notes.append("This network has one head: DIST belongs to students.")
    if probes.has_attention(model):
        notes.append(
            "Where a token looks: its attention rollout over all blocks, stretched to its own range; yellow is most, "
            "violet least."
        )
    else:
        notes.append("A convolutional network has no attention to show.")
    return {
        "run": Path(flags.workdir).resolve().name,
        "model": described,
        "heads": heads,
        "class_names": list(names),
        "class_counts": None if counts is None else counts.tolist(),
        "groups": groups,
        "image_size": model.input_shape[1],
        "eval_resize": of_network(flags, teacher=flags.weights == "teacher").eval_resize,
        "max_pixels": min(max_pixels_of(flags), int(flags.request_megapixels * 1e6)),
        "notes": notes,
    }


if __name__ == "__main__":
    command_line.program(main, __doc__, from_workdir=True, takes=TAKES)
