"""Checks the models that datamodel-code-generator made: `python check_models.py FOLDER DOCUMENT`.

Every body and answer of every operation has its class, which validates every example.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def check(models: Any, content: dict[str, Any]) -> None:
    schema = content["schema"]
    names = [one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema])]
    kinds = [getattr(models, name) for name in names]
    for example in content["examples"].values():
        if "value" in example:
            assert any(takes(kind, example["value"]) for kind in kinds), (names, example["value"])


def takes(kind: Any, example: Any) -> bool:
    try:
        kind.model_validate(example)
    except ValueError:
        return False
    return True


def main() -> None:
    folder, document = sys.argv[1:]
    sys.path.insert(0, folder)
    models = importlib.import_module("models")
    paths = json.loads(Path(document).read_text(encoding="utf-8"))["paths"]
    found = [operation for methods in paths.values() for operation in methods.values()]
    for operation in found:
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            for kind, content in part.get("content", {}).items():
                if kind.endswith("json"):
                    check(models, content)
    sys.stdout.write(f"{len(found)} operations\n")


if __name__ == "__main__":
    main()
