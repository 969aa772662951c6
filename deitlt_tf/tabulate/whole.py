"""Tell what the input is, read it, and write the table."""

import contextlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from deitlt_tf.tabulate import camtrap, coco, darwin_core
from deitlt_tf.tabulate.archive import Archive
from deitlt_tf.tabulate.rows import Report, blocks_of, write

READS = (
    "a Darwin Core archive (with meta.xml), a Camtrap DP (with datapackage.json), or JSON files of iNaturalist or COCO"
)


def tabulate(files: Sequence[str], out: str, *, drop_several: bool = False) -> None:
    """Write the table `out` of these files, and print how many images and classes it has, and what is left out.

    files: an archive (a folder or a .zip), or JSON files. drop_several: whether images of several species are left out.
    Raises ValueError or FileNotFoundError that names the file.
    """
    if not files:
        raise ValueError(f"`input` is missing: name {READS}.")
    if not out.endswith((".parquet", ".pq")):
        raise ValueError(f"out={out}: name the table to write, FILE.parquet." if out else "`out` is missing.")
    for file in files:
        if not os.path.exists(file):
            raise FileNotFoundError(f"input={file}: there is no such file.")
    report = Report(drop_several=drop_several)
    with contextlib.ExitStack() as stack:
        if any(os.path.isdir(file) or zipfile.is_zipfile(file) or file.lower().endswith(".zip") for file in files):
            if len(files) > 1:
                raise ValueError(
                    f"input: {files[0]} and {files[1]} cannot be read together: give one archive at a time."
                )
            archive = stack.enter_context(contextlib.closing(Archive(files[0])))
            if camtrap.is_package(archive):
                blocks = blocks_of(camtrap.rows(archive, report))
            elif darwin_core.DESCRIPTION in archive.names:
                blocks = darwin_core.blocks(archive, report)
            else:
                raise ValueError(f"{files[0]} is not what tabulate reads: {READS}.")
        else:
            blocks = blocks_of(coco.rows(files, report))
        images, classes, columns = write(Path(out), blocks)
    if left := report.sentence():
        print(f"note: left out are images {left}.")
    rank = "species" if "species" in columns else "label"
    place = "path" if "path" in columns else "url"
    print(f"written: {out}, {images} images of {classes} classes, with {', '.join(columns)}")
    images_from = "fetch puts them" if place == "url" else "their paths start"
    print(f"train with --data=table --table={out} --rank={rank} --data_dir=FOLDER, where {images_from}")
