"""onnxruntime-web, which runs ONNX files in a browser. Its files come from npm and are part of this package.

    python -m deitlt_tf.demo.runtime

gets the pinned version from npm and writes demo/page/vendor/: the loader and the smallest WebAssembly build (CPU only),
gzipped, because the server sends them so. A file with another SHA-256 is refused. To update, change VERSION and FILES.
"""

import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.30.0"
FILES = {  # name in dist/ of the npm package: SHA-256
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}


FOLDER = Path(__file__).parent / "page" / "vendor"


def read(name: str) -> bytes:
    """The gzipped file `name` of FILES. Raises FileNotFoundError, or ValueError where it is not the pinned one."""
    path = FOLDER / f"{name}.gz"
    advice = "get it with: python -m deitlt_tf.demo.runtime (it needs npm)."
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, a part of onnxruntime-web {VERSION}: {advice}")
    packed = path.read_bytes()
    try:
        check(name, gzip.decompress(packed))
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged, or of another version than {VERSION}: {advice}") from error
    return packed


def check(name: str, body: bytes) -> None:
    """Raises ValueError unless `body` is the pinned file `name` of FILES."""
    if hashlib.sha256(body).hexdigest() != FILES[name]:
        raise ValueError(f"{name} is not that of onnxruntime-web {VERSION}: its SHA-256 differs.")


def fetch() -> None:
    """Write FILES, gzipped, with the same bytes each time.

    Raises OSError where npm fails, ValueError where it sends other files.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = ["npm", "pack", "--silent", f"onnxruntime-web@{VERSION}", "--pack-destination", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise OSError(f"npm could not pack onnxruntime-web {VERSION} ({error}).") from error
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
            bodies = {name: member.read() for name, member in members.items() if member}
    for name in FILES:
        check(name, bodies.get(name, b""))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, body in bodies.items():
        (FOLDER / f"{name}.gz").write_bytes(gzip.compress(body, 9, mtime=0))


if __name__ == "__main__":
    try:
        fetch()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"onnxruntime-web {VERSION} is in {FOLDER}")
