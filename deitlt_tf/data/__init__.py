"""The data, from folders, lists and packages to batches of pixels. May import `graphs`.

In the order in which an image meets them: `sources` (where the images are), `storage` (disk or URL), `dataset` (images,
labels, class names), `taxonomy` (ranks of the classes), `decode` (bytes to pixels), `augment` and `randaugment` (the
view of one image), `pipeline` (batches). `shards` writes a data set as a few large files.
"""
