"""TODO: common/document."""
