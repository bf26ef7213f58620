"""A space: what belongs to one shop of a deployment, as one value. Most deployments have one, the default."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from service.settings.service_settings import Settings

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What the rooms need to know about the shop they serve.

    Rooms take these values from the space, never from the settings of the process, so that several spaces can live in
    one process without touching each other's keys and files.

    Attributes:
        name: The name of the space, also the label of its metrics; not exported while there is one space.
        settings: The settings in the scope of the space: budgets, limits, breaker.
        key_prefix: First part of every Redis key.
        artifact: Folder of the model, or of several versions of it; None if an engine is handed over.
        policies: File of the decoding policies.
        catalogue_updates: File of stock changes and new items; None if there is none.
        copies: Folder of the local copies of the shared values.
        copy_scope: Part of their names that no other space has.
        share: Weight of the space where spaces wait for the same processor.
    """

    name: str
    settings: Settings
    key_prefix: str
    artifact: Path | None
    policies: Path
    catalogue_updates: Path | None
    copies: Path
    copy_scope: str
    share: float = 1.0

    @classmethod
    def default(cls, settings: Settings) -> Space:
        """Returns the space that the settings of the service describe."""
        return cls.of(DEFAULT, settings)

    @classmethod
    def of(cls, name: str, settings: Settings, share: float = 1.0) -> Space:
        """Returns the space that some settings describe.

        Args:
            name: Of the space.
            settings: In the scope of the space, its artefact, files and key prefix among them.
            share: Its weight.
        """
        # Without the credentials of the URL: they may change, and should not be derivable from a file name.
        server = settings.redis_url.get_secret_value().rpartition("@")[2]
        return cls(
            name=name,
            settings=settings,
            key_prefix=settings.redis_prefix,
            artifact=settings.artifact,
            policies=settings.policies,
            catalogue_updates=settings.catalogue_updates,
            copies=settings.data_dir,
            copy_scope=blake2b(f"{server} {settings.redis_prefix}".encode(), digest_size=6).hexdigest(),
            share=share,
        )

    @property
    def deployed(self) -> str | None:
        """The name of the artefact's folder. A model that operators choose is valid for this deployment only."""
        return None if self.artifact is None else self.artifact.name

    def copy_of(self, value: str) -> Path:
        """Returns the file that keeps a shared value for a restart while Redis is unavailable.

        Each Redis and prefix has files of its own, so that deployments that share a folder do not mix.

        Args:
            value: The name of the shared value: mode, model or policies.
        """
        return self.copies / f"{value}-{self.copy_scope}.json"
