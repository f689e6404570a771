"""The measurements themselves are no tests, and are not searched for doctests."""

collect_ignore_glob = ["bench_*.py", "harness.py", "distributed.py", "parity.py", "run.py"]
