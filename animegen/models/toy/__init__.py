"""A minimal model family, the template for new ones."""

from animegen.models.toy.module import Toy

__all__ = ["Toy"]
