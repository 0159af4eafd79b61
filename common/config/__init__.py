"""TODO: common/config."""
