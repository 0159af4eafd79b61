"""Worker: trains beside the data. Takes tasks, trains them and publishes the deltas."""
