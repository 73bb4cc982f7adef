"""Blocks that several models use: convolutions, norms, features, discriminators, colour, tiles."""
