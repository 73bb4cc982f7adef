"""The Hydra configuration tree, shipped as ``animegen.conf``."""
