"""TODO: common/run_directory."""
