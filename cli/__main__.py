"""`python -m cli`: the command, by the interpreter that runs now."""

from cli.main import main

main()
