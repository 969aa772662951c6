"""The demo as a user runs it; and in a browser, where there is one, the same answers as Keras."""

import base64
import io
import json
import socket
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_run
from helpers.tiny_run import CLASS_COUNTS, CLASS_NAMES, finished
from PIL import Image

from deitlt_tf.data import augment, decode
from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.demo import __main__ as demo
from deitlt_tf.demo import runtime
from deitlt_tf.evaluation import probes, rollup
from deitlt_tf.models import interface
from deitlt_tf.runs.files import write_text
from deitlt_tf.runs.models import load_model, save_model

EVIL = "<img src=x onerror=alert(1)>"


def contents_of(folder: Path, *, weights: str = "student") -> dict:
    """What the demo of a run serves."""
    return demo.contents(tiny_run.recipe_of(folder), weights=weights, max_pixels=50_000_000)


def test_no_port_no_host_no_model_are_one_sentence(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    write_text(folder / "flags.cfg", f"--workdir={folder}\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for arguments, words in (
            ([f"--port={port}"], f"127.0.0.1, port {port} (Address already in use): choose another --port"),
            (["--port=0", "--host=nowhere.invalid"], "cannot listen at nowhere.invalid"),
            (["--port=0"], "student.keras: this run has no such finished model"),
            (["--port=0", "--weights=ema"], "student_ema.keras: this run has no such finished model"),
            (["--port=70000"], "--port"),
            (["--port=0", "--top_k=3"], "--top_k is a flag of another command"),
        ):
            monkeypatch.setattr(sys, "argv", ["demo", f"--workdir={folder}", *arguments])
            with pytest.raises(SystemExit, match="1"):
                demo.program()
            printed = capsys.readouterr().err
            assert printed.startswith("error: ") and words in printed and printed.count("\n") == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with a class of a hostile name."""
    folder = finished(tmp_path_factory.mktemp("demo"))
    model, names = load_model(folder / "student.keras")
    save_model(model, folder / "student.keras", class_names=(EVIL, *names[1:]))
    return folder


@pytest.mark.slow
def test_everything_that_the_page_asks_for_is_served(run):
    served = contents_of(run)
    facts = json.loads(served["/facts.json"].body)
    assert facts["class_names"] == [EVIL, *CLASS_NAMES[1:]] and facts["class_counts"] == list(CLASS_COUNTS)
    assert facts["groups"] == ["head", "mid", "tail"] and facts["heads"] == ["cls", "dist", "mean"]
    assert (facts["image_size"], facts["eval_resize"], facts["max_pixels"]) == (8, 0, 50_000_000)
    assert {f"/vendor/{name}" for name in runtime.FILES} < served.keys() and served["/"] == served["/index.html"]
    assert all(content.kind for content in served.values())


@pytest.mark.slow
def test_a_plain_vit_a_teacher_and_an_import_show_what_there_is(tmp_path):
    plain = contents_of(finished(tmp_path / "plain", "--method=vit"))
    facts = json.loads(plain["/facts.json"].body)
    assert facts["heads"] == ["cls"] and any("one head" in note for note in facts["notes"])
    folder = finished(tmp_path / "taught", teacher=True)
    (folder / "results.json").unlink()
    facts = json.loads(contents_of(folder, weights="teacher")["/facts.json"].body)
    assert facts["class_counts"] is facts["groups"] is None
    assert any("no attention" in note for note in facts["notes"])


@pytest.fixture
def opened(browser, serving):
    """opened(contents, width) -> a page of them. When the test ends: no message, and no request to another server."""
    pages, messages, elsewhere = [], [], []

    def open_page(contents, width: int = 1280):
        server = serving(contents)
        page = browser.new_page(viewport={"width": width, "height": 800})
        pages.append(page)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on(
            "request",
            lambda request: (
                elsewhere.append(request.url)
                if request.method != "GET" or not request.url.removeprefix("blob:").startswith(server.url)
                else None
            ),
        )
        page.goto(server.url)
        page.wait_for_selector("#model:not(:empty)")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not messages and not elsewhere


def photograph(width: int, height: int) -> Image.Image:
    """Shapes and grain: something between a gradient and noise, in colour."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / a) * np.cos(y / b) for a, b in ((7, 19), (31, 5), (3, 43))]
    grain = np.random.default_rng(width).normal(0, 12, (height, width, 3))
    return Image.fromarray((np.stack(waves, -1) + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn, which training ignores
    return exif


def viewed(data: bytes, *, size: int, resize: int) -> np.ndarray:
    image = decode.decode(tf.constant(data), name="test", max_pixels=10**8)
    return augment.evaluation_view(image, size=size, resize=resize).numpy()


VIEW = """async ([data, size, resize]) => {
    const { evaluationView, plainImage } = await import("/view.js");
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const file = await plainImage(new Blob([bytes]));
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    let text = "";
    for (const value of evaluationView(bitmap, { size, resize })) text += String.fromCharCode(value);
    return btoa(text);
}"""


@pytest.mark.slow
def test_the_view_in_the_browser_is_the_evaluation_view(opened, run):
    page = opened(contents_of(run))
    files = {
        (width, height): encoded(photograph(width, height), "PNG")
        for width, height in ((500, 375), (224, 224), (9, 11), (37, 900), (1400, 1100))
    }
    files["grey"] = encoded(photograph(300, 200).convert("L"), "PNG")
    files["WebP"] = encoded(photograph(300, 200), "WEBP", lossless=True)
    files["JPEG, turned"] = encoded(photograph(500, 375), "JPEG", quality=90, exif=turned())
    files["PNG, turned"] = encoded(photograph(301, 200), "PNG", exif=turned())
    files["WebP, turned"] = encoded(photograph(301, 200), "WEBP", lossless=True, exif=turned())
    for name, data in files.items():
        for size, resize in ((224, 256), (224, 0), (32, 0), (32, 37)):
            view = page.evaluate(VIEW, [base64.b64encode(data).decode(), size, resize])
            expected = viewed(data, size=size, resize=resize).ravel()
            differences = np.abs(np.frombuffer(base64.b64decode(view), np.uint8).astype(int) - expected)
            assert differences.max() <= 1 and np.mean(differences > 0) < 1e-3, (name, size, resize)


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_answers_as_keras_does(opened, run, width, tmp_path):
    model, _ = load_model(run / "student.keras")
    data = encoded(photograph(60, 45), "JPEG", quality=95, exif=turned())
    (tmp_path / "a & b.jpg").write_bytes(data)
    image = viewed(data, size=8, resize=0)[None].astype(np.float32)
    expected = {name: keras.ops.softmax(z).numpy()[0] for name, z in interface.heads(model(image)).items()}

    page = opened(contents_of(run), width)
    page.set_input_files("#file", tmp_path / "a & b.jpg")
    page.wait_for_selector("#answer:not([hidden])", timeout=60_000)
    panels = page.locator("#heads section").all()
    assert [panel.locator("h3").inner_text() for panel in panels] == ["CLS", "DIST", "mean"]
    names = (EVIL, *CLASS_NAMES[1:])
    for panel, (_, probabilities) in zip(panels, expected.items(), strict=True):
        order = np.argsort(-probabilities)
        assert panel.locator(".first span").all_inner_texts() == [names[i] for i in order]
        values = [float(x.get_attribute("value")) for x in panel.locator("data").all()]
        np.testing.assert_allclose(values, probabilities[order], atol=1e-4)
        assert panel.locator(".count").all_inner_texts() == [
            f"{('head', 'mid', 'tail')[i]} · {CLASS_COUNTS[i]} training images" for i in order
        ]
    best = names[np.argmax(expected["mean"])]
    assert page.locator("#verdict").inner_text() == f"{best}, {100 * expected['mean'].max():.1f} %"
    assert page.locator("#heads img").count() == 0  # the hostile name is text
    assert page.locator("canvas").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    pixels = page.evaluate("[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 8, 8).data]")
    assert np.abs(np.array(pixels).reshape(8, 8, 4)[..., :3] - image[0]).max() <= 1


WORKER = """([data]) => new Promise((resolve) => {
    const worker = new Worker("/worker.js", { type: "module" });
    const plain = (key, value) => (ArrayBuffer.isView(value) ? [...value] : value);
    worker.onmessage = ({ data }) => resolve(JSON.stringify(data.outputs, plain));
    worker.postMessage({ id: 1, file: new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]) });
})"""


@pytest.mark.slow
def test_rollouts_and_logits_in_the_browser_are_keras(opened, run):
    model, _ = load_model(run / "student.keras")
    data = encoded(photograph(50, 70), "PNG")
    image = viewed(data, size=8, resize=0)[None].astype(np.float32)
    outputs = json.loads(opened(contents_of(run)).evaluate(WORKER, [base64.b64encode(data).decode()]))
    for head, z in interface.heads(model(image)).items():
        np.testing.assert_allclose(outputs[f"logits_{head}"]["data"], z.numpy()[0], atol=1e-4 * np.abs(z).max())
    batch = tf.data.Dataset.from_tensors((image, np.zeros(1), np.ones(1)))
    expected = probes.probe(model, batch).rollout
    assert outputs["rollout"]["dims"] == list(expected.shape)
    np.testing.assert_allclose(outputs["rollout"]["data"], expected.ravel(), atol=1e-5)


@pytest.mark.slow
def test_what_is_no_image_or_too_large_is_told_and_the_page_goes_on(opened, run, tmp_path):
    page = opened(contents_of(run))
    files = {
        "notes.txt": (b"not an image", "“notes.txt” is not an image that this browser can read"),
        "half.png": (encoded(photograph(60, 45), "PNG")[:40], "“half.png” is not an image"),
        "bomb.png": (
            encoded(Image.new("1", (10_000, 10_000)), "PNG"),
            "“bomb.png” has 100 megapixels, more than the 50 that this page takes",
        ),
        "none.jpg": (b"", "“none.jpg” is not an image"),
    }
    for name, (data, words) in files.items():
        (tmp_path / name).write_bytes(data)
        page.set_input_files("#file", tmp_path / name)
        page.locator("#mistake", has_text=words).wait_for(timeout=60_000)
        assert page.locator("#answer").is_hidden()
    (tmp_path / "good.png").write_bytes(encoded(photograph(60, 45), "PNG"))
    page.set_input_files("#file", tmp_path / "good.png")
    page.wait_for_selector("#answer:not([hidden])", timeout=60_000)
    assert page.locator("#mistake").is_hidden()


@pytest.mark.slow
def test_images_are_dropped_and_pasted_too(opened, run):
    page = opened(contents_of(run))
    data = base64.b64encode(encoded(photograph(20, 30), "PNG")).decode()
    for kind in ("drop", "paste"):
        page.evaluate(
            """([kind, data]) => {
                const transfer = new DataTransfer();
                const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
                transfer.items.add(new File([bytes], `${kind}.png`));
                const event = kind === "drop"
                    ? new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true })
                    : new ClipboardEvent(kind, { clipboardData: transfer, bubbles: true });
                document.body.dispatchEvent(event);
            }""",
            [kind, data],
        )
        page.locator("#status", has_text=f"{kind}.png: ").wait_for(timeout=60_000)
    page.evaluate("document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: new DataTransfer() }))")
    page.locator("#mistake", has_text="That was not a file").wait_for()


BY_RANK = """async ([probabilities, taxonomy, thresholds]) => {
    const { answersByRank, sureRow } = await import("/ranks.js");
    const answers = answersByRank(probabilities, taxonomy);
    return { ...answers, sure: thresholds.map((threshold) => sureRow(answers.rows, threshold)) };
}"""


@pytest.mark.slow
def test_answers_by_rank_in_the_browser_are_those_of_the_rules(opened, tmp_path):
    lineages = [("a", "A", "F"), ("b", "A", "F"), ("c", "B", "F"), ("d", "C", "G"), ("e", None, "G")]
    taxonomy = from_lineages(lineages, ("species", "genus", "family"))
    page = opened(contents_of(finished(tmp_path, taxonomy=tiny_run.TAXONOMY)))
    thresholds = (0.3, 0.5, 0.7, 0.9)
    for p in np.random.default_rng(0).dirichlet(np.full(5, 0.7), 20).astype(np.float32):
        found = page.evaluate(BY_RANK, [p.tolist(), taxonomy.to_dict(), thresholds])
        answers = rollup.by_rank(tf.constant(p[None]), taxonomy)
        names = [nodes[i] for nodes, i in zip(taxonomy.nodes, answers.node[0].numpy(), strict=True)]
        assert [row["name"] for row in found["rows"]] == names
        np.testing.assert_allclose([row["probability"] for row in found["rows"]], answers.confidence[0], atol=1e-6)
        assert found["leastRisk"] == taxonomy.class_names[int(answers.least_risk[0])]
        ranks = [int(rollup.sure(answers.confidence, threshold)[0]) for threshold in thresholds]
        assert found["sure"] == [-1 if rank == 3 else rank for rank in ranks]


@pytest.mark.slow
def test_the_page_answers_at_the_rank_that_is_sure(opened, tmp_path):
    evil = from_lineages([("blue", EVIL), ("green", EVIL), ("red", "warm")], ("class", "kind"))
    page = opened(contents_of(finished(tmp_path, taxonomy=evil)), 360)
    (tmp_path / "a.png").write_bytes(encoded(photograph(60, 45), "PNG"))
    page.set_input_files("#file", tmp_path / "a.png")
    page.wait_for_selector("#ranks:not([hidden])", timeout=60_000)
    assert page.locator("#from").inner_text() == "90.0 %"
    rows = page.locator("#by-rank .first span").all_inner_texts()
    best = page.locator("#verdict").inner_text().partition(",")[0]
    assert rows[0] == f"class: {best}" and rows[1] in (f"kind: {EVIL}", "kind: warm")
    read_probabilities = "elements => elements.map(element => Number(element.value))"
    of_class, of_kind = page.eval_on_selector_all("#by-rank data", read_probabilities)
    for threshold in (0.01, of_class + 0.005, 0.99):
        page.locator("#threshold").fill(f"{threshold:.2f}")
        sure = page.locator("#sure").inner_text()
        chosen = float(page.locator("#threshold").input_value())
        expected = "(class)" if of_class >= chosen else "(kind)" if of_kind >= chosen else "No rank is sure"
        assert expected in sure and (expected != "(class)" or sure.startswith(best))
    assert page.locator("#ranks img").count() == 0  # the hostile name is text
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


MANY = """self.onmessage = ({ data: { id } }) => {
    const logits = new Float32Array(200000).map((_, c) => (c === 150000 ? 20 : 0));
    const tensor = { dims: [1, logits.length], data: logits };
    self.postMessage({ id, pixels: new Uint8Array(192), outputs: { logits_cls: tensor } });
};"""


def test_the_page_shows_the_best_of_200_000_classes(opened, tmp_path):
    """With the page's own scripts, and a worker that answers at once."""
    facts = {
        "run": "large", "model": "large", "heads": ["cls"], "image_size": 8, "eval_resize": 0, "max_pixels": 10**6,
        "class_names": [str(c) for c in range(200_000)], "class_counts": [7] * 200_000, "groups": [""] * 200_000,
        "notes": [],
    }  # fmt: skip
    files = {f"/{path.name}": path for path in demo.PAGE.iterdir() if path.is_file()}
    served = {name: demo.Content(demo.KINDS[path.suffix], path.read_bytes()) for name, path in files.items()}
    served["/"] = served["/index.html"]
    served["/facts.json"] = demo.Content("application/json", json.dumps(facts).encode())
    served["/worker.js"] = demo.Content("text/javascript", MANY.encode())
    page = opened(served)
    (tmp_path / "a.png").write_bytes(encoded(photograph(20, 30), "PNG"))
    page.set_input_files("#file", tmp_path / "a.png")
    page.wait_for_selector("#answer:not([hidden])", timeout=60_000)
    assert page.locator("#verdict").inner_text() == f"150000, {100 / (1 + 199_999 * np.exp(-20)):.1f} %"
    assert page.locator(".count").all_inner_texts() == ["7 training images"] * 5  # equally frequent: without a group
