"""The hospital scenario: fccl against Flower, live; `python -m benchmarks.hospital --help`."""
