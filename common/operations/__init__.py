"""TODO: common/operations."""
