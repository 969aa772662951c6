"""Data: `sources` (where it is), `splits` (what that is), `decode` and `augment` (one image), `pipeline` (a batch)."""
