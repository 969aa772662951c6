"""Make a table, one row an image, of a Darwin Core archive, a Camtrap DP, or JSON of iNaturalist or COCO Camera Traps.

    python -m deitlt_tf.tabulate --input=0012345-240101000000000.zip --out=beetles.parquet
    python -m deitlt_tf.tabulate --input=train2018.json,val2018.json,categories.json --out=inat18.parquet
    python -m deitlt_tf.tabulate --input=caltech_images.json --several=drop --out=caltech.parquet

The content says what each file is, not its name. The table is what --data=table and fetch read: the path or address of
each image, its class and ranks, its observation or sequence, camera, place and day, its licence and photographer, and
the file that it was in (`split`). An image with several species has no one class: it is named and refused, or left out
and counted with --several=drop.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe, *, input: str, out: str, several: str) -> None:
    from deitlt_tf.tabulate import whole

    whole.tabulate([*filter(None, input.split(","))], out, drop_several=several == "drop")


def program() -> None:
    command_line.program(main, __doc__, takes=("input", "out", "several"))


if __name__ == "__main__":
    program()
