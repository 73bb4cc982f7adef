"""The smallest model: what a family needs, and nothing else."""

from animegen.models.toy.module import Toy

__all__ = ["Toy"]
