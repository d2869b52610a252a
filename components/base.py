"""How our components are made: thin, on our images, nothing installed at run time."""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from goldpath.core import images


def component(function: Callable[..., Any]) -> Callable[..., Any]:
    """A KFP component whose body imports the installed package: small, byte-stable YAML, logic tested without KFP.

    Its image is the launcher's: it starts work and watches it.
    """
    return _made(function, images.launcher())


def computing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a step that loads models itself, on the trainer's image."""
    return _made(function, images.trainer())


def _made(function: Callable[..., Any], image: str) -> Callable[..., Any]:
    made: Callable[..., Any] = dsl.component(base_image=image, install_kfp_package=False)(function)
    return made
