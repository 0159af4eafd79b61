"""`python -m cli`: the `fccl` command with the current interpreter."""

from cli.main import main

main()
