"""TODO: common/protocol."""
