"""`python -m bullet_core`: the `bullet` command."""

from ._cli import main

main()
