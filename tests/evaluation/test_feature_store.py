"""Features are computed once for each image, whatever its name and place, and survive a kill."""

import keras
import numpy as np
import pytest

from deitlt_tf.data.dataset import Source
from deitlt_tf.evaluation import feature_store
from deitlt_tf.evaluation.feature_store import FeatureStore

PARTS = 4  # images of a file


def network(seed: int = 0, *, size: int = 4) -> keras.Model:
    """Pixels -> five features that differ from image to image."""
    images = keras.Input((size, size, 3))
    init = keras.initializers.RandomNormal(seed=seed)
    x = keras.layers.Flatten()(images)
    return keras.Model(images, keras.layers.Dense(5, kernel_initializer=init)(x))


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(feature_store, "PART", PARTS)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)


def source(pixels: np.ndarray) -> Source:
    return Source(pixels, np.zeros(len(pixels), np.int32), ("a", "b"))


def store(folder, net, **changes) -> FeatureStore:
    return FeatureStore(folder, net, **{"name": "net", "eval_resize": 0, "max_pixels": 100} | changes)


def written(folder) -> list[int]:
    """The numbers of images in the files."""
    return [len(np.load(path)["features"]) for path in sorted(folder.rglob("*.npz"))]


def test_features_are_those_of_the_network_and_each_image_is_computed_once(net, tmp_path):
    pixels = images(10)
    values = store(tmp_path, net).features(source(pixels))
    np.testing.assert_allclose(values, net(pixels), rtol=1e-5)
    assert written(tmp_path) == [4, 4, 2]
    more = np.concatenate([images(3, seed=1), pixels[::-1], pixels[:2]])  # another order, new and equal images
    values = store(tmp_path, net).features(source(more))
    np.testing.assert_allclose(values, net(more), rtol=1e-5)
    assert written(tmp_path) == [4, 4, 2, 3]


def test_files_are_known_by_their_content(net, tmp_path, images_on_disk):
    first = store(tmp_path / "f", net).features(images_on_disk("one"))
    again = store(tmp_path / "f", net).features(images_on_disk("two"))  # the same files elsewhere
    np.testing.assert_array_equal(first, again)
    assert sum(written(tmp_path)) == len(np.unique(first, axis=0)) == 3


@pytest.fixture
def images_on_disk(tmp_path):
    from PIL import Image

    def write(name: str) -> Source:
        (tmp_path / name).mkdir()
        paths = [str(tmp_path / name / f"{name}{i}.png") for i in range(3)]
        for path, pixels in zip(paths, images(3), strict=True):
            Image.fromarray(pixels).save(path)
        return Source(np.array(paths, object), np.zeros(3, np.int32), ("a", "b"))

    return write


def test_a_killed_computation_goes_on_from_its_last_file(net, tmp_path, monkeypatch):
    pixels = images(10)
    write = FeatureStore._write

    def killed(self, path, *rest):
        if path.stem == "000001":
            raise KeyboardInterrupt
        write(self, path, *rest)

    monkeypatch.setattr(FeatureStore, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path, net).features(source(pixels))
    assert written(tmp_path) == [4]
    monkeypatch.setattr(FeatureStore, "_write", write)
    values = store(tmp_path, net).features(source(pixels))
    np.testing.assert_allclose(values, net(pixels), rtol=1e-5)
    assert written(tmp_path) == [4, 4, 2]


@pytest.mark.parametrize("damage", ["cut", "shape", "large", "text"])
def test_a_damaged_file_is_told_and_computed_again(net, tmp_path, capsys, damage):
    pixels = images(6)
    store(tmp_path, net).features(source(pixels))
    path = next(iter(sorted(tmp_path.rglob("*.npz"))))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "text":
        path.write_text("no archive")
    else:
        rows = 3 if damage == "shape" else 50
        np.savez(path, digests=np.zeros((rows, 32), np.uint8), features=np.zeros((rows, 4 + rows // 40), np.float32))
    values = store(tmp_path, net).features(source(pixels))
    np.testing.assert_allclose(values, net(pixels), rtol=1e-5)
    assert f"note: {path} is damaged" in capsys.readouterr().out


def test_another_network_or_view_has_features_of_its_own(net, tmp_path):
    folders = {
        store(tmp_path, net).folder,
        store(tmp_path, network(seed=1)).folder,
        store(tmp_path, network(size=8)).folder,
        store(tmp_path, net, eval_resize=6).folder,
        store(tmp_path, net, name="other").folder,
    }
    assert len(folders) == 5 and store(tmp_path, net, max_pixels=7).folder in folders
