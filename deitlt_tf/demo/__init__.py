"""A page on which a person tries a finished run."""
