"""Download the images of a table: resumable, gentle to the server, with a journal and the licences.

    python -m deitlt_tf.fetch --table=chunk_0.parquet --keep="order == Coleoptera" --max_images=200 --data_dir=beetles

takes the flags of a training run with --data=table, downloads the rows that it would use, and leaves in --data_dir

    123/4567123.jpg      the images; the folder is the last three digits of the id, the suffix says what the content is
    fetch.jsonl          a line for each image: id, status, bytes, SHA-256, address
    attribution.csv      licence, photographer and address of each image, as the table has them

The same command goes on where it was stopped, and asks for no image twice. --rate is the largest number of requests a
second to one server; a server that answers 429 or 503 is left alone for as long as it asks for (Retry-After).
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe, *, rate: float, connections: int, tries: int, max_mb: float, again: bool) -> None:
    from deitlt_tf.fetch import whole
    from deitlt_tf.fetch.download import Limits

    if recipe.data.name not in ("table", "folder"):  # folder is the default of --data
        raise ValueError(f"--data={recipe.data.name} has nothing to fetch: images come from a --table of addresses.")
    limits = Limits(max_bytes=int(max_mb * 1e6), max_pixels=recipe.data.max_pixels, tries=tries)
    whole.fetch(recipe.data, rate=rate, connections=connections, limits=limits, again=again)


def program() -> None:
    command_line.program(main, __doc__, takes=("rate", "connections", "tries", "max_mb", "again"))


if __name__ == "__main__":
    program()
