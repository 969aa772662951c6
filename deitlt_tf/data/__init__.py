"""Data: `sources` (where it is), `decode` and `augment` (one image), `pipeline` (a batch)."""
