"""One log line for each change of a state."""

from __future__ import annotations

from typing import Any

from service.common import logs

log = logs.get(__name__)


class StateLog:
    """Logs the changes of one state as `<what>_changed`, with the states before (`was`) and after (`now`).

    Call `saw` as often as you like. Nothing is logged while the state stays the same, however its details change.
    """

    def __init__(self, what: str, usual: str, **labels: str) -> None:
        """Begins with the usual state, which is not logged at the start.

        Args:
            what: What has the state: `breaker`, `mode`, `store`, …
            usual: The state of a service that is well.
            labels: Further fields of every line.
        """
        self._event, self._labels = f"{what}_changed", labels
        self.state = usual

    def saw(self, state: str, **details: Any) -> bool:
        """Logs the state if it is another than before.

        Args:
            state: The present state.
            details: What explains it: a cause, a share, an operator. Never a secret or a user.

        Returns:
            Whether it has changed.
        """
        if state == self.state:
            return False
        was, self.state = self.state, state
        log.warning(self._event, was=was, now=state, **self._labels, **details)
        return True
