"""The panes of `fccl tui`, one file each: widgets with `show(look)`. They read nothing else."""
