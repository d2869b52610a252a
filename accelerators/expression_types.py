"""What a CEL expression surely results in, and the names in it that Kubernetes does not know.

Names of functions: the CEL reference of Kubernetes ("Common Expression Language in Kubernetes"), with cel-go's
extensions that it switches on.
"""

from __future__ import annotations

from typing import Any

FIELDS = {"driver": "string", "attributes": "map", "capacity": "map", "allowMultipleAllocations": "bool"}
"""Of `device`, and what they are."""

_BY_RESULT = {
    "bool": (
        "has all exists exists_one existsOne matches contains startsWith endsWith isSorted isURL isQuantity isInteger "
        "isGreaterThan isLessThan isSemver isIP isCIDR isCanonical isUnspecified isLoopback isLinkLocalMulticast "
        "isLinkLocalUnicast isGlobalUnicast containsIP containsCIDR equivalent intersects hasValue bool includes"
    ),
    "number": (
        "size int uint double indexOf lastIndexOf compareTo sign asInteger asApproximateFloat family prefixLength "
        "major minor patch getFullYear getMonth getDayOfYear getDate getDayOfMonth getDayOfWeek getHours getMinutes "
        "getSeconds getMilliseconds"
    ),
    "string": (
        "string charAt join lowerAscii upperAscii replace substring trim format quote getScheme getHost getHostname "
        "getPort getEscapedPath"
    ),
    "list": "filter map split findAll transformList",
    "map": "transformMap transformMapEntry getQuery",
    "value": "bytes type duration timestamp quantity semver ip cidr url masked",
    "": (  # what it was given, or too much to tell here
        "dyn min max sum find bind of none ofNonZeroValue or orValue optMap optFlatMap add sub value reverse named "
        "validate first last flatten sort sortBy distinct range slice"
    ),
}
_RESULTS = {name: kind for kind, names in _BY_RESULT.items() for name in names.split()}
_WRAPPERS = frozenset(
    {"expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary", "member"}
    | {"primary", "paren_expr"}
)
_OPERATORS = dict.fromkeys(("conditionalor", "conditionaland", "relation"), "bool")
_OPERATORS |= dict.fromkeys(("addition", "multiplication"), "value") | {"list_lit": "list", "map_lit": "map"}
_LITERALS = {"BOOL_LIT": "bool", "STRING_LIT": "string", "MLSTRING_LIT": "string", "NULL_LIT": "null"}
_LITERALS |= dict.fromkeys(("INT_LIT", "UINT_LIT", "FLOAT_LIT"), "number") | {"BYTES_LIT": "value"}


def calls(tree: Any) -> list[str]:
    """Functions and methods that there are not, sorted."""
    names = {str(call.children[0]) for call in tree.find_data("ident_arg")}
    names |= {str(call.children[1]) for call in tree.find_data("member_dot_arg")}
    return sorted(names - set(_RESULTS))


def fields(tree: Any) -> list[str]:
    """Fields of `device` that there are not, sorted."""
    read = {str(one.children[1]) for one in tree.find_data("member_dot") if _is_device(one.children[0])}
    return sorted(read - set(FIELDS))


def not_bool(tree: Any) -> str:
    """What surely stands where true or false has to: beside && and ||, and before a ?; empty where nothing does."""
    operands = [
        node.children for name in ("conditionalor", "conditionaland") for node in tree.find_data(name)
    ]
    operands = [both for both in operands if len(both) > 1]
    operands += [node.children[:1] for node in tree.find_data("expr") if len(node.children) == 3]
    kinds = sorted({result(one) for both in operands for one in both} - {"bool", ""})
    return kinds[0] if kinds else ""


def result(tree: Any) -> str:
    """What it gives: bool, number, string, list, map, null or another value; empty where that cannot be told."""
    while True:
        children = tree.children
        name = str(tree.data)
        if name == "expr" and len(children) == 3:
            kinds = sorted({result(child) for child in children[1:]})
            if "" in kinds:
                return ""
            return next((kind for kind in kinds if kind != "bool"), "bool")
        if len(children) > 1 or name not in _WRAPPERS:
            return _result(name, children)
        tree = children[0]


def _result(name: str, children: list[Any]) -> str:
    """Of a node that does something."""
    made = _OPERATORS.get(name, "")
    if name == "unary":
        made = "bool" if str(children[0].data) == "unary_not" else "number"
    elif name == "literal":
        made = _LITERALS.get(children[0].type, "")
    elif name in ("ident_arg", "member_dot_arg"):
        made = _RESULTS.get(str(children[name == "member_dot_arg"]), "")
    elif name == "member_dot" and _is_device(children[0]):
        made = FIELDS.get(str(children[1]), "")
    elif name == "ident" and str(children[0]) == "device":
        made = "device"
    return made


def _is_device(tree: Any) -> bool:
    return result(tree) == "device"
