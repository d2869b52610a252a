"""Read the objects of an API from a generated Python client, by its sources (importing them takes seconds).

Two generators are understood: OpenAPI Generator's `openapi_types` classes (kubernetes, kserve) and its Pydantic
models (kubeflow_trainer_api, kubeflow_katib_api).
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VERSIONED = re.compile(r"^(?P<prefix>.*?)(?P<version>V\d+(?:(?:alpha|beta)\d+)?)(?=[A-Z])")
_UNVERSIONED = re.compile(
    r"^(?:IoK8s|K8sIo)Apimachinery(?:PkgApiResource|PkgUtilIntstr|PkgRuntime|PkgVersion)"
)
_SCALARS = {
    "int": "integer", "StrictInt": "integer", "str": "string", "StrictStr": "string", "bool": "boolean",
    "StrictBool": "boolean", "float": "number", "StrictFloat": "number", "datetime": "timestamp",
    "object": "any", "Any": "any", "StrictBytes": "bytes", "bytes": "bytes", "file": "bytes",
}  # fmt: skip


@dataclass(frozen=True)
class ApiField:
    """One field of an API object."""

    name: str
    """As in YAML: `minReadySeconds`."""
    type: str
    """As a reader wants it: `integer`, `list of string`, `map of Quantity`."""
    required: bool
    description: str
    target: str
    """Class of the object that it holds, one or many; empty for scalars."""
    container: str
    """`list`, `map` or empty."""


@dataclass(frozen=True)
class ApiObject:
    """One object of an API."""

    name: str
    """Class in the client: `IoK8sApiCoreV1Affinity`."""
    kind: str
    """Bare name, the same in all packages and versions: `Affinity`."""
    version: str
    """`v1`, `v1beta1` or empty."""
    description: str
    fields: tuple[ApiField, ...]


def package_folder(package: str) -> Path | None:
    """Where a package is installed, without importing it; None if it is not."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def bare_kind(name: str) -> tuple[str, str]:
    """Kind and version of a class: `IoK8sApiCoreV1Affinity` is (`Affinity`, `v1`)."""
    found = _VERSIONED.match(name)
    if found:
        return name[found.end() :], found["version"].lower()
    return _UNVERSIONED.sub("", name), ""


def read_objects(folder: Path) -> Iterator[ApiObject]:
    """Every API object in a folder of generated models, sorted by file name."""
    for path in sorted(folder.glob("*.py")):
        if path.name == "__init__.py":
            continue
        tree = ast.parse(path.read_bytes())
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                yield _read_class(node)


def _read_class(node: ast.ClassDef) -> ApiObject:
    constants = {
        target.id: statement.value
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    kind, version = bare_kind(node.name)
    if "openapi_types" in constants:
        return ApiObject(node.name, kind, version, "", tuple(_openapi_fields(node, constants)))
    return ApiObject(
        node.name, kind, version, squeeze(ast.get_docstring(node) or ""), tuple(_pydantic_fields(node))
    )


def squeeze(text: str) -> str:
    """One line of prose, without the generator's marks."""
    return " ".join(text.replace("# noqa: E501", " ").split())


def _openapi_fields(node: ast.ClassDef, constants: dict[str, ast.expr]) -> Iterator[ApiField]:
    types: dict[str, str] = ast.literal_eval(constants["openapi_types"])
    names: dict[str, str] = ast.literal_eval(constants["attribute_map"])
    docs, required = {}, set()
    for item in node.body:
        if not isinstance(item, ast.FunctionDef):
            continue
        if item.name == "__init__":
            required = {target.attr for statement in item.body for target in _self_targets(statement)}
        elif item.name in types and item.name not in docs:  # the getter stands before the setter
            docs[item.name] = squeeze((ast.get_docstring(item) or "").split(":return:")[0].partition("\n")[2])
    for attribute, annotation in types.items():
        text, target, container = _openapi_type(annotation)
        yield ApiField(
            names[attribute], text, attribute in required, docs.get(attribute, ""), target, container
        )


def _self_targets(statement: ast.stmt) -> Iterator[ast.Attribute]:
    # A required attribute is assigned at the top of __init__, an optional one below an `if`.
    for target in statement.targets if isinstance(statement, ast.Assign) else []:
        if isinstance(target, ast.Attribute):
            yield target


def _openapi_type(annotation: str) -> tuple[str, str, str]:
    for opening, container in (("list[", "list"), ("dict(str, ", "map")):
        if annotation.startswith(opening):
            text, target, inner = _openapi_type(annotation[len(opening) : -1])
            return f"{container} of {text}", "" if inner else target, container
    return _named(annotation)


def _named(name: str) -> tuple[str, str, str]:
    if name in _SCALARS:
        return _SCALARS[name], "", ""
    return bare_kind(name)[0], name, ""


def _pydantic_fields(node: ast.ClassDef) -> Iterator[ApiField]:
    for item in node.body:
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
            continue
        annotation = item.annotation
        if _outer(annotation) == "ClassVar":
            continue
        options = {
            keyword.arg: keyword.value.value
            for keyword in (item.value.keywords if isinstance(item.value, ast.Call) else [])
            if keyword.arg and isinstance(keyword.value, ast.Constant)
        }
        optional = _outer(annotation) == "Optional"
        text, target, container = _pydantic_type(annotation)
        yield ApiField(
            name=str(options.get("alias", item.target.id)),
            type=text,
            required=not optional,
            description=squeeze(str(options.get("description", ""))),
            target=target,
            container=container,
        )


def _outer(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        return annotation.value.id
    return ""


def _pydantic_type(annotation: ast.expr) -> tuple[str, str, str]:
    outer = _outer(annotation)
    if isinstance(annotation, ast.Subscript):
        parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if outer in ("Optional", "Annotated", "Union"):  # a union here is one of number kinds
            return _pydantic_type(parts[0])
        if outer in ("List", "Dict"):
            container = "list" if outer == "List" else "map"
            text, target, inner = _pydantic_type(parts[-1])
            return f"{container} of {text}", "" if inner else target, container
    return _named(annotation.id if isinstance(annotation, ast.Name) else ast.unparse(annotation))
