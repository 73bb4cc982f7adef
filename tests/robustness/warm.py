"""What each forked process would import, read and compose again, once in the process from which they are forked."""

from __future__ import annotations

from PIL import Image

from animegen.cli import compare, evaluate, generate, interpolate, prepare, stylize, train  # noqa: F401
from animegen.config import trust
from animegen.config.compose import compose_config
from animegen.config.instantiate import build
from tests.support import tiny

Image.init()
trust.installed()
for words in (("experiment=toy/quickstart", "logger=csv"), ("experiment=interpolation/quickstart",)):
    build(compose_config("train", tiny(*words), complete=False).model, "model")
