"""Runs three generators of clients on the OpenAPI document: `python -m tests.support.generators`, or `make generators`.

They are installed into a folder of their own, in the versions of `requirements.txt` and `package-lock.json`.
`--install` installs them, and ends with 1 if that is not possible, as without a network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from service.api.openapi.operations import operations
from service.app import create_app
from service.settings.service_settings import Settings

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[2] / ".generators"
# Of one command: what takes longer hangs.
_PATIENCE_S = 80
_CONTENT = '["content"]["application/json"]'


class FailedError(Exception):
    """A command failed; the message is what it said."""


def install(tools: Path) -> None:
    """Installs the generators. Raises FailedError."""
    tools.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, tools / name)
    venv.create(tools / "venv", clear=True)
    # By the pip of this environment: to install one into the other takes longer than everything else.
    pip = [sys.executable, "-m", "pip", "--python", _python(tools), "--disable-pip-version-check", "--quiet"]
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(
                _run, [*pip, "install", "--no-deps", "--requirement", str(HERE / "requirements.txt")], None, None
            ),
            pool.submit(_run, ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], tools, None),
        ]
        for one in both:
            one.result()


def document() -> dict[str, Any]:
    """The document as a service with every route serves it."""
    app = create_app(
        Settings.model_validate({"playground": True, "api_keys": "shop:secret", "ops_tokens": "alice:secret"})
    )

    async def get() -> dict[str, Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
            found: dict[str, Any] = (await client.get("/v1/openapi.json")).raise_for_status().json()
            return found

    return asyncio.run(get())


def python_client(tools: Path, file: Path) -> str:
    """openapi-python-client: functions and classes. A warning would mean that an operation is left out."""
    config = file.with_name("client.yaml")
    config.write_text("post_hooks: []\n", encoding="utf-8")
    made = file.with_name("client")
    _run([str(tools / "venv/bin/openapi-python-client"), "generate", "--path", str(file), "--meta", "none",
          "--output-path", str(made), "--config", str(config), "--fail-on-warning"])  # fmt: skip
    return _run([_python(tools), str(HERE / "check_client.py"), str(file.parent), str(file)])


def models(tools: Path, file: Path) -> str:
    """datamodel-code-generator: pydantic models."""
    made = file.with_name("models.py")
    _run([str(tools / "venv/bin/datamodel-codegen"), "--input", str(file), "--input-file-type", "openapi", "--output",
          str(made), "--output-model-type", "pydantic_v2.BaseModel", "--formatters", "builtin"])  # fmt: skip
    return _run([_python(tools), str(HERE / "check_models.py"), str(file.parent), str(file)])


def typescript(tools: Path, file: Path, described: dict[str, Any]) -> str:
    """openapi-typescript: types, which the TypeScript compiler checks against every operation and example."""
    types, uses = file.with_name("api.d.ts"), file.with_name("uses.ts")
    binaries = tools / "node_modules/.bin"
    _run([str(binaries / "openapi-typescript"), str(file), "--output", str(types), "--default-non-nullable=false"])
    uses.write_text(_uses(described), encoding="utf-8")
    _run([str(binaries / "tsc"), "--noEmit", "--strict", "--target", "es2022", str(uses)], file.parent)
    return f"{sum(1 for _ in operations(described))} operations\n"


def _uses(described: dict[str, Any]) -> str:
    """Code that names every operation, and gives every example the type of its body or answer."""
    ids, lines = [], ['import type { operations } from "./api";']
    for _, _, operation in operations(described):
        its = operation["operationId"]
        ids.append(f"{its}: true")
        parts = [(f'"requestBody"]{_CONTENT}', operation.get("requestBody", {}))]
        parts += [(f'"responses"]["200"]{_CONTENT}', operation["responses"]["200"])]
        for place, part in parts:
            for example in part.get("content", {}).get("application/json", {}).get("examples", {}).values():
                kind = (
                    f'NonNullable<operations["{its}"][{place}'
                    if "requestBody" in place
                    else f'operations["{its}"][{place}'
                )
                kind = kind.replace(f'"requestBody"]{_CONTENT}', f'"requestBody"]>{_CONTENT}')
                lines.append(f"export const _{len(lines)}: {kind} = {json.dumps(example['value'])};")
    return "\n".join([*lines, f"export const all: Record<keyof operations, true> = {{ {', '.join(ids)} }};", ""])


def _python(tools: Path) -> str:
    return str(tools / "venv/bin/python")


def _run(command: list[str], folder: Path | None = None, patience_s: float | None = _PATIENCE_S) -> str:
    # Code that was generated is imported once.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=patience_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedError(str(error)) from None
    if done.returncode:
        raise FailedError(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, default=TOOLS, help="folder of the generators")
    parser.add_argument("--install", action="store_true", help="install the generators, and do nothing else")
    asked = parser.parse_args()
    tools = asked.tools.resolve()
    if asked.install:
        try:
            install(tools)
        except FailedError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        return 0
    described, failed = document(), False
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        file = Path(folder) / "openapi.json"
        file.write_text(json.dumps(described), encoding="utf-8")
        running = {
            "openapi-python-client": pool.submit(python_client, tools, file),
            "datamodel-code-generator": pool.submit(models, tools, file),
            "openapi-typescript": pool.submit(typescript, tools, file, described),
        }
        for name, one in running.items():
            try:
                said = one.result()
            except FailedError as error:
                failed, said = True, f"failed\n{error}\n"
            sys.stdout.write(f"{name}: {said}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
