"""`python -m spectralize.cli`."""

from spectralize.cli import main

main()
