"""The aggregation code of Flower and APPFL beside fccl's, on the same updates of clients.

Neither is a dependency: `python -m benchmarks.peers` makes an environment for each.
"""
