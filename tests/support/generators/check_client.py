"""Checks the client that openapi-python-client made: `python check_client.py FOLDER DOCUMENT`, FOLDER being its parent.

Every operation has its functions, every example of a body goes through the body's class and back, and every example of
an answer through the parser of the operation.
"""

from __future__ import annotations

import importlib
import json
import sys
import typing
from datetime import datetime
from pathlib import Path
from typing import Any


def same(sent: Any, given: Any) -> bool:
    """Whether `given` has all that was sent; classes add members that have a default."""
    if isinstance(sent, dict):
        return isinstance(given, dict) and all(key in given and same(value, given[key]) for key, value in sent.items())
    if isinstance(sent, list):
        return isinstance(given, list) and len(sent) == len(given) and all(map(same, sent, given))
    if isinstance(sent, str) and sent != given:
        return datetime.fromisoformat(sent) == datetime.fromisoformat(given)
    return bool(sent == given)


def through(kinds: Any, example: Any) -> Any:
    """An example through the first of the classes that takes it."""
    for kind in typing.get_args(kinds) or (kinds,):
        try:
            return kind.from_dict(example).to_dict()
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    raise SystemExit(f"no class takes {json.dumps(example)[:300]}")


def check(operation: dict[str, Any]) -> None:
    where = operation["operationId"]
    module = importlib.import_module(f"client.api.{operation['tags'][0]}.{where}")
    for name in ("sync_detailed", "asyncio_detailed"):
        assert callable(getattr(module, name)), where
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        kinds = typing.get_type_hints(module.sync_detailed)["body"]
        for example in content["examples"].values():
            assert same(example["value"], through(kinds, example["value"])), (where, example["value"])
    content = operation["responses"]["200"]["content"].get("application/json")
    if content is not None:
        httpx = importlib.import_module("httpx")
        client = importlib.import_module("client").Client(base_url="http://localhost")
        for example in content["examples"].values():
            parsed = module._parse_response(client=client, response=httpx.Response(200, json=example["value"]))
            assert same(example["value"], parsed.to_dict()), (where, example["value"])


def main() -> None:
    folder, document = sys.argv[1:]
    sys.path.insert(0, folder)
    paths = json.loads(Path(document).read_text(encoding="utf-8"))["paths"]
    found = [operation for methods in paths.values() for operation in methods.values()]
    for operation in found:
        check(operation)
    sys.stdout.write(f"{len(found)} operations\n")


if __name__ == "__main__":
    main()
