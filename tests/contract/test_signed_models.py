"""A service with `artifact_keys` serves signed artefacts alone: at the start, when operators choose, and beside."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from export.signing import SigningKey, new_key
from service.artifact.signature import SIGNATURE
from service.common.errors import SettingsError, StartupError
from service.common.request_errors import ModelRefused
from service.engine.engine import Engine
from service.lifecycle.loader import Loader
from service.metrics.service_metrics import Metrics
from service.settings.service_settings import Settings
from service.settings.space import Space
from tests.support.aio import asynchronous
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey


class World:
    """Two versions beside each other, the first of them signed, and the keys."""

    def __init__(self, folder: Path, versions: tuple[Path, Path]) -> None:
        self.signed, self.other = (Path(shutil.copytree(one, folder / "models" / one.name)) for one in versions)
        self.keys, private = folder / "keys", folder / "shop.pem"
        self.keys.write_text(new_key("shop", private) + "\n")
        self.shop = SigningKey.read(private)
        self.shop.sign(self.signed)
        new_key("stranger", folder / "stranger.pem")
        self.stranger = SigningKey.read(folder / "stranger.pem")

    def loader(self, artifact: Path) -> Loader:
        settings = Settings(artifact=artifact, artifact_keys=self.keys, device="cpu")
        return Loader(Space.default(settings), Metrics())

    def serving(self, redis_url: str, prefix: str) -> Any:
        engine = cast("FakeEngine", Engine.open(self.signed, device="cpu", threads=1))
        return serving(
            engine, redis_url=redis_url, prefix=prefix, operator=True, artifact=self.signed, artifact_keys=self.keys,
            device="cpu", history_cap=400, deadline_max_ms=2000.0, mode_poll_ms=50.0,
        )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, two_versions: tuple[Path, Path]) -> World:
    return World(tmp_path, two_versions)


async def entry(service: Service, version: str) -> dict[str, Any]:
    models = (await service.client.get("/ops/models")).json()["models"]
    return next(cast("dict[str, Any]", model) for model in models if model["version"] == version)


@asynchronous
async def test_at_the_start_only_a_signed_artefact_is_opened(world: World) -> None:
    (await world.loader(world.signed).open()).close()
    with pytest.raises(StartupError, match="it is not signed"):
        await world.loader(world.other).open()
    world.stranger.sign(world.other)
    with pytest.raises(StartupError, match="signed with none of the keys"):
        await world.loader(world.other).open()
    shutil.copyfile(world.signed / SIGNATURE, world.other / SIGNATURE)
    with pytest.raises(StartupError, match="is not what shop signed"):
        await world.loader(world.other).open()


@asynchronous
async def test_without_the_file_of_keys_nothing_is_opened(world: World) -> None:
    world.keys.unlink()
    with pytest.raises(SettingsError, match=r"GPT4REC_ARTIFACT_KEYS.*cannot be read"):
        await world.loader(world.signed).open()


@asynchronous
async def test_operators_cannot_activate_what_is_not_signed_and_can_once_it_is(
    world: World, shared_valkey: Valkey
) -> None:
    async with world.serving(shared_valkey.url, "signed-activation:") as service:
        version = world.other.name
        for sign, cause in ((None, "it is not signed"), (world.stranger, "signed with none of the keys")):
            if sign is not None:
                sign.sign(world.other)
            shown = await entry(service, version)
            refused = await service.client.post(f"/ops/models/{version}/activate")
            assert refused.status_code == 422, refused.text
            assert cause in refused.json()["detail"]
            assert (shown["available"], cause in shown["fault"]) == (False, True)
        world.shop.sign(world.other)
        assert (await entry(service, version))["available"]
        done = await service.client.post(f"/ops/models/{version}/activate")
        assert done.status_code == 200, done.text
        assert service.runtime.space.model.version == version


@asynchronous
async def test_a_model_beside_the_one_in_service_must_be_signed_too(world: World, shared_valkey: Valkey) -> None:
    async with world.serving(shared_valkey.url, "signed-arm:") as service:
        held = service.runtime.space.experiments.held
        with pytest.raises(ModelRefused, match="it is not signed"):
            await held.hold(world.other.name)
        world.shop.sign(world.other)
        await held.hold(world.other.name)
        assert held.get(world.other.name) is not None


@asynchronous
async def test_a_key_that_is_withdrawn_signs_for_nothing_that_is_loaded_afterwards(
    world: World, shared_valkey: Valkey
) -> None:
    world.shop.sign(world.other)
    async with world.serving(shared_valkey.url, "signed-withdrawn:") as service:
        world.keys.write_text(new_key("next", world.keys.parent / "next.pem") + "\n")
        refused = await service.client.post(f"/ops/models/{world.other.name}/activate")
        assert (refused.status_code, service.runtime.space.model.version) == (422, world.signed.name)
