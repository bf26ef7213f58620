"""Another checkout of the service, as an environment in which `served_process.serve` starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class CheckoutError(RuntimeError):
    """A folder is no checkout that can be served."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A working tree of the service; its packages are those of the running interpreter."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """Returns the variables with which Python takes `service` from here.

        Raises:
            CheckoutError: If it takes it from elsewhere.
        """
        # Without the second, the current folder would come before PYTHONPATH.
        found = {"PYTHONPATH": str(self.folder.resolve()), "PYTHONSAFEPATH": "1"}
        shown = subprocess.run(
            [sys.executable, "-c", "import service; print(service.__file__)"], check=False, capture_output=True,
            text=True, env={**os.environ, **found},
        )  # fmt: skip
        if not shown.stdout.startswith(f"{self.folder.resolve()}{os.sep}"):
            raise CheckoutError(f"{self.folder}: no checkout with a service: {shown.stdout or shown.stderr[-300:]}")
        return found

    def known(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Returns these settings, empty where this checkout does not have them: it refuses what it does not know.

        Its page of settings says which ones it has.
        """
        page = self.folder / "docs" / "reference.md"
        names = set(re.findall(r"^\| `(GPT4REC_\w+)`", page.read_text(encoding="utf-8"), re.MULTILINE))
        return {name: value if name in names else "" for name, value in wanted.items()}
