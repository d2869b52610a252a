"""docs/settings.md names every variable that goldpath reads, and where it comes from."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from goldpath.core import environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text()
VARIABLE = re.compile(
    r"(GOLDPATH|MLFLOW_TRACKING|AWS|KF|KFP|KATIB)_[A-Z_]+|HF_TOKEN|SSL_CERT_FILE|KUBECONFIG"
)
KINDS = {
    environment.SETTINGS: "ConfigMap",
    environment.STORAGE: "Secret",
    environment.TRACKING: "Secret",
}


def read_by_the_code() -> set[str]:
    names = set()
    for file in ROOT.glob("*/__init__.py"):
        for module in file.parent.rglob("*.py"):
            if module.is_relative_to(ROOT / "tests"):
                continue
            for node in ast.walk(ast.parse(module.read_text())):
                if isinstance(node, ast.Constant) and VARIABLE.fullmatch(str(node.value)):
                    names.add(str(node.value))
    return names


def named_in_the_docs() -> set[str]:
    texts = [file.read_text() for file in (ROOT / "docs").rglob("*.md")]
    return {
        found[1]
        for text in texts
        for found in re.finditer(r"`([A-Z_]+)[`=]", text)
        if VARIABLE.fullmatch(found[1])
    }


def test_it_names_every_variable() -> None:
    shown = {found.rstrip("_") for found in re.findall(r"`([A-Z_]+)(?:\.\.\.)?`", PAGE)}
    wanted = {name.rstrip("_") for name in read_by_the_code() | named_in_the_docs()}
    assert {"GOLDPATH_STORAGE", "KF_PIPELINES_SA_TOKEN_PATH"} <= wanted
    assert wanted - shown == set()


def test_each_key_is_said_to_be_where_it_is_read_from() -> None:
    rows = dict(
        re.findall(r"^\| `([A-Z_]+)` \| ((?:ConfigMap|Secret) [^|]+ \| [^|]+) \|", PAGE, re.MULTILINE)
    )
    assert rows == {
        key.name: ", else ".join(f"{KINDS[source]} `{source}`" for source in key.sources)
        + (" | steps, training jobs" if key.jobs else " | steps")
        for key in environment.KEYS
    }
