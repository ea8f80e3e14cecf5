"""One image: read, prepared for a network, varied, and looked at by itself."""
