"""What the loop asks of the service: the routes of operators, by HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from model.errors import RunError
from service.cli.ops_http import activation_path, detail_of, experiment_path

# A model is verified, opened and warmed up before the answer comes.
_ACTIVATE_S = 600.0
_USUAL_S = 30.0


class ServiceRefusedError(RunError):
    """The service answered that it will not do it.

    Attributes:
        status: Status of the answer.
    """

    def __init__(self, status: int, detail: str, where: str) -> None:
        super().__init__(f"the service refuses: {status}, {detail}", where=where)
        self.status, self.detail = status, detail


class ServiceAwayError(RunError):
    """The service cannot be reached, or is not ready to answer."""


class Service:
    """The service, for an operator.

    Args:
        url: Its URL.
        token: An ops token; empty for none.
    """

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=_USUAL_S)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def models(self) -> dict[str, Any]:
        """Returns which version is served, and which others there are."""
        return await self._ask("GET", "/ops/models")

    async def activate(self, version: str, reason: str) -> None:
        """Makes a version that of everybody."""
        await self._ask("POST", activation_path(version), {"reason": reason}, _ACTIVATE_S)

    async def experiments(self) -> dict[str, Any]:
        """Returns all experiments and the hold-out."""
        return await self._ask("GET", "/ops/experiments")

    async def experiment(self, name: str) -> dict[str, Any] | None:
        """Returns the report of an experiment; None if there is none."""
        try:
            return await self._ask("GET", experiment_path(name))
        except ServiceRefusedError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    async def start(self, spec: Mapping[str, Any]) -> None:
        """Starts an experiment."""
        await self._ask("POST", "/ops/experiments", spec, _ACTIVATE_S)

    async def stop(self, name: str, reason: str) -> None:
        """Stops an experiment."""
        await self._ask("POST", f"{experiment_path(name)}/stop", {"reason": reason})

    async def promote(self, name: str, arm: str, reason: str) -> None:
        """Gives everybody what an arm has."""
        await self._ask("POST", f"{experiment_path(name)}/promote", {"arm": arm, "reason": reason}, _ACTIVATE_S)

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = _USUAL_S
    ) -> dict[str, Any]:
        """Returns an answer.

        Raises:
            ServiceAwayError: There is none, or one of the 500s.
            ServiceRefusedError: It is an error.
        """
        where = f"{method} {self.url}{path}"
        try:
            answer = await self._client.request(method, path, json=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise ServiceAwayError(
                f"no answer of the service: {type(error).__name__}", where=where,
                fix="start the service, or name it with --url (GPT4REC_OPS_URL)",
            ) from error  # fmt: skip
        if answer.is_success:
            return _object(answer, where)
        detail = detail_of(answer)
        if answer.is_server_error:
            raise ServiceAwayError(f"the service answers {answer.status_code}, {detail}", where=where)
        raise ServiceRefusedError(answer.status_code, detail, where)


def token_of(given: str, file: str) -> str:
    """Returns the ops token that was given, or that of the first line of a file, with or without a name.

    Raises:
        RunError: The file cannot be read.
    """
    if given or not file:
        return given
    try:
        first = Path(file).read_text("utf-8").strip().splitlines()[:1]
    except (OSError, ValueError) as error:
        raise RunError(
            f"the ops token cannot be read: {error}", where=file, fix="see GPT4REC_LOOP_TOKEN_FILE"
        ) from error
    return first[0].rpartition(":")[2].strip() if first else ""


def _object(answer: httpx.Response, where: str) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServiceAwayError("this is not an answer of gpt4rec", where=where, fix="is there a proxy in between?")
    return found
