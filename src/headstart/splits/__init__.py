"""Which images train, which are held out, and which belong together."""
