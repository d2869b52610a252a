"""How our components are made: thin, on our image, nothing installed at run time."""

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from kfp import dsl

IMAGE = os.environ.get("GOLDPATH_IMAGE") or f"goldpath/launcher:{version('goldpath')}"
"""Image of every step, its tag the package's version; `GOLDPATH_IMAGE` sets another (or a digest) at compile time."""


def component(function: Callable[..., Any]) -> Callable[..., Any]:
    """A KFP component whose body imports the installed package: small, byte-stable YAML, logic tested without KFP."""
    made: Callable[..., Any] = dsl.component(base_image=IMAGE, install_kfp_package=False)(function)
    return made
