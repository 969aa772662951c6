"""Moved to `python -m deitlt_tf.demo.runtime`; this name is kept for one release."""

import runpy

if __name__ == "__main__":
    runpy.run_module("deitlt_tf.demo.runtime", run_name="__main__")
