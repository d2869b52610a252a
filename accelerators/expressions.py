"""CEL: the expressions by which a request chooses devices.

Parsed by cel-python, whose grammar lacks the optional selections (``a.?b``, ``a[?'b']``) that Kubernetes has: they are
read as plain ones. Kubernetes knows one variable, ``device`` (``driver``, ``attributes``, ``capacity`` and
``allowMultipleAllocations``). What an expression results in and which functions it calls is checked as far as it can be
told without the API server's types (`expression_types`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from goldpath.accelerators.expression_types import FIELDS, calls, fields, not_bool, result
from goldpath.core.errors import SpecError

MAX_LENGTH = 10 * 1024  # resource.k8s.io/v1: CELSelectorExpressionMaxLength
EXAMPLE = "device.attributes['gpu.nvidia.com'].productName.matches('H100')"
_STRING = r"""[rRbB]{0,2}(?:'''(?s:.*?)'''|\"\"\"(?s:.*?)\"\"\"|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
_OPTIONAL = re.compile(rf"({_STRING})|(\.|\[)\?")
_VARIABLES = frozenset({"device", "cel", "optional", "math", "strings", "sets", "lists"})
_TYPES = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})
_MACROS = frozenset(
    {"all", "exists", "exists_one", "existsOne", "map", "filter", "transformList", "transformMap"}
)


@lru_cache(maxsize=256)
def check(expression: str) -> None:
    """Refuse what the API server would surely refuse.

    That is an expression that does not parse, reads a variable or a field of `device` or calls a function that there is
    not, or gives something else than true or false. Overloads (``1 + 'a'``) and
    patterns (``matches('(')``) are left to the API server.

    Raises:
        SpecError: what is wrong and where.
    """
    if len(expression.encode()) > MAX_LENGTH:
        raise SpecError(
            f"a CEL expression has {len(expression.encode())} bytes", f"At most {MAX_LENGTH} are allowed."
        )
    tree = compiled(expression)
    strangers = sorted(_variables(tree) - _VARIABLES - _TYPES)
    if strangers:
        raise SpecError(
            f"the CEL expression {_short(expression)} uses {strangers[0]}, which is not declared",
            f"The one variable is `device`. Example: {EXAMPLE}.",
        )
    if unknown := calls(tree):
        raise SpecError(
            f"the CEL expression {_short(expression)} calls {unknown[0]}, which Kubernetes' CEL does not have",
            f"Example: {EXAMPLE}.",
        )
    if unknown := fields(tree):
        raise SpecError(
            f"the CEL expression {_short(expression)} reads device.{unknown[0]}, which there is not",
            f"A device has {', '.join(FIELDS)}. Example: {EXAMPLE}.",
        )
    if kind := not_bool(tree):
        raise SpecError(
            f"the CEL expression {_short(expression)} has a {kind} where true or false has to stand",
            f"&& and || join comparisons. Example: {EXAMPLE}.",
        )
    if (kind := result(tree)) not in ("bool", ""):
        raise SpecError(
            f"the CEL expression {_short(expression)} gives a {kind}, not true or false",
            f"Example: {EXAMPLE}.",
        )


def compiled(expression: str) -> Any:
    """The syntax tree.

    Raises:
        SpecError: the expression does not parse.
    """
    import celpy

    plain = _OPTIONAL.sub(lambda match: match[1] or match[2], expression)
    try:
        return celpy.Environment().compile(plain)
    except celpy.CELParseError as error:
        where = f" at column {error.column}" if getattr(error, "column", None) else ""
        raise SpecError(
            f"the CEL expression {_short(expression)} does not parse{where}", f"Example: {EXAMPLE}."
        ) from None


def _variables(tree: Any) -> set[str]:
    """Names that are read as variables, without those that a macro binds."""
    read = {str(node.children[0]) for node in tree.find_data("ident")}
    bound: set[str] = set()
    for call in tree.find_data("member_dot_arg"):
        name, arguments = str(call.children[1]), call.children[2:]
        if arguments and name in _MACROS:
            bodies = 2 if name in ("map", "filter") and len(arguments[0].children) == 3 else 1
            count = 2 if name.startswith("transform") else len(arguments[0].children) - bodies
            for argument in arguments[0].children[:count]:
                bound |= {str(node.children[0]) for node in argument.find_data("ident")}
        elif arguments and name == "bind":
            bound |= {str(node.children[0]) for node in arguments[0].children[0].find_data("ident")}
    return read - bound


def _short(expression: str) -> str:
    return repr(expression if len(expression) <= 60 else expression[:57] + "...")
