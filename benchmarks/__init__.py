"""Measurements that users of hsfuse don't need: from a checkout, `python -m benchmarks.NAME`."""
