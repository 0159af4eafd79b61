"""One pane of `fccl tui` per file: a widget whose `show` puts a `Look` on the screen."""
