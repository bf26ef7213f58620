"""Opens the model in service, its switch, and the models that are held beside it."""

from __future__ import annotations

from service.answers.kept_lists import KeptLists
from service.assembly.coordination import SharedValues
from service.assembly.opening import Opening
from service.coordination.replica_registry import ReplicaRegistry
from service.experiments.keeper import in_force
from service.guard.guards import Guards
from service.history.state_keeper import StateKeeper
from service.lifecycle.held_models import HeldModels
from service.lifecycle.loader import LoadedModel, Loader
from service.lifecycle.model_admission import ModelAdmission, nothing_to_prepare
from service.lifecycle.model_folders import ModelFolders
from service.lifecycle.model_switch import ModelSwitch
from service.lifecycle.serving import Serving
from service.store.store import Store


async def open_lifecycle(
    opening: Opening,
    store: Store,
    shared: SharedValues,
    loader: Loader,
    first: LoadedModel,
    states: StateKeeper,
    guards: Guards,
    kept: KeptLists,
) -> tuple[Serving, ModelSwitch, HeldModels]:
    """Returns the model in service, its switch, and what is held beside it.

    A model that operators chose before a restart is loaded again.
    """
    space, settings = opening.space, opening.space.settings

    def replaced() -> None:
        states.model_replaced()
        kept.clear()

    serving = Serving(first.model, on_replace=replaced)
    first.serve(serving)
    folders = ModelFolders(space.artifact, opening.metrics.file_lane("models"), settings.artifact_keys)
    busy_s = (settings.deadline_max_ms + settings.catch_up_timeout_ms) / 1000.0

    def keep_only() -> None:
        states.cache.keep_only([serving.model, *held.models])

    def swapped() -> None:
        guards.model_changed()
        held.look()

    held = HeldModels(
        serving,
        ModelAdmission(loader, prepare=nothing_to_prepare, history_cap=states.history_cap),
        folders,
        lambda: in_force(shared.experiments).models,
        opening.metrics,
        bytes_max=int(settings.models_held_mib * 2**20),
        on_close=keep_only,
        busy_s=busy_s,
    )
    models = ModelSwitch(
        first,
        serving,
        ModelAdmission(loader, prepare=states.prepare, history_cap=states.history_cap),
        folders,
        shared.model,
        ReplicaRegistry(store, shared.clock),
        shared.audit,
        opening.metrics,
        on_swap=swapped,
        on_close=keep_only,
        deployed=space.deployed,
        busy_s=busy_s,
    )
    opening.stack.push_async_callback(models.close)
    opening.stack.push_async_callback(held.close)
    await models.follow()
    return serving, models, held
