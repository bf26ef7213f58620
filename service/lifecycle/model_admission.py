"""Decides whether a model version may be served: loads it, checks it, and remembers why it was refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from service.common import logs
from service.common.errors import ServiceError
from service.common.request_errors import ModelRefused
from service.lifecycle.loader import LoadedModel, Loader
from service.lifecycle.model_folders import ModelFolder, without_path
from service.lifecycle.served_model import ServedModel

log = logs.get(__name__)


async def nothing_to_prepare(model: ServedModel) -> None:
    """Prepares nothing: the first requests of a model do their own work."""


class ModelAdmission:
    """Loads the versions that operators choose. A version that was refused is not tried again until its files change.

    Attributes:
        loading: The version that is being loaded; None if there is none.
    """

    def __init__(self, loader: Loader, *, prepare: Callable[[ServedModel], Awaitable[None]], history_cap: int) -> None:
        """Prepares for the first version.

        Args:
            loader: Opens and starts models.
            prepare: Awaited before a model is served, to do the work that its first requests would have to do.
            history_cap: Events that histories keep. A model that reads more is refused.
        """
        self._loader, self._prepare, self._history_cap = loader, prepare, history_cap
        self._faults: dict[str, tuple[object, str]] = {}
        self.loading: str | None = None

    def fault_of(self, folder: ModelFolder) -> str | None:
        """Returns why a version was refused; None if it was not, or if its files have changed since."""
        stamp, cause = self._faults.get(folder.version, (None, ""))
        return cause if stamp == folder.stamp else None

    async def load(self, folder: ModelFolder) -> LoadedModel:
        """Returns the model, ready to answer.

        Raises:
            ModelRefused: The version cannot be served; `fault_of` returns the cause from then on.
        """
        self.loading = folder.version
        engine = None
        try:
            if folder.fault is not None:
                raise ModelRefused(folder.fault)
            engine = await self._loader.open(folder.path)
            if engine.receptive_field > self._history_cap:
                raise ModelRefused(
                    f"it reads {engine.receptive_field} events, but histories here keep {self._history_cap}: set "
                    f"GPT4REC_HISTORY_CAP to {engine.receptive_field} and restart"
                )
            loaded = await self._loader.start(engine, own=True, check_first=True)
            engine = None
            await self._prepared(loaded)
        except Exception as error:
            if engine is not None:
                engine.close()
            known = isinstance(error, ServiceError)
            cause = without_path(error, folder.path) if known else f"it cannot be loaded ({type(error).__name__})"
            self._faults[folder.version] = (folder.stamp, cause)
            where = {} if known else logs.where(error)
            log.error("model_refused", model_version=folder.version, cause=cause, **where)
            raise ModelRefused(cause) from error
        finally:
            self.loading = None
        self._faults.pop(folder.version, None)
        return loaded

    async def _prepared(self, loaded: LoadedModel) -> None:
        """Best effort: if it fails, the first requests do the same work."""
        try:
            await self._prepare(loaded.model)
        except Exception as error:
            log.error("model_not_prepared", **logs.where(error))
