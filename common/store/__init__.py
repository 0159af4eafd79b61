"""TODO: common/store."""
