"""Run directory of the coordinator: journal, version files, spool, and files for people."""
