"""From where the images are to batches. May import `graphs`.

`sources` (where it is), `dataset` (what that is), `storage` (disk or URL), `decode` (bytes to pixels), `augment` and
`randaugment` (one image), `pipeline` (a batch).
"""
