"""Run directory of the coordinator: journal, version files, spool, and the lines for people."""
