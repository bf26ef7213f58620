"""An answer of JSON, as nearly every route gives it."""

from __future__ import annotations

from starlette.responses import Response


class JsonReply(Response):
    """A JSON answer, whose headers are put together only where something looks at them.

    The request gate sends it in one piece otherwise (`lines`).

    Args:
        body: The JSON.
        status: The HTTP status.
    """

    media_type = "application/json"

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.body: bytes = body
        self.status_code, self.background = status, None
        self._raw: list[tuple[bytes, bytes]] | None = None

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Its headers."""
        if self._raw is None:
            self.init_headers()
        assert self._raw is not None  # noqa: S101 - they were set
        return self._raw

    @raw_headers.setter
    def raw_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._raw = headers

    def lines(self) -> bytes | None:
        """Returns its header lines; None if the headers may have been changed."""
        if self._raw is not None:
            return None
        return b"content-length: %d\r\ncontent-type: application/json\r\n" % len(self.body)
