"""The routes of operators for experiments. Like the model and the policies, they are shared by every replica.

With `dry_run`, a change is not made: the answer says what it would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service.api.direct_route import DirectRoute
from service.api.openapi.document import answers, takes
from service.api.request import reply, runtime, secret_of
from service.api.runtime import Runtime
from service.experiments.document import Experiment
from service.experiments.report import report
from service.schemas import ops_answers as out
from service.schemas.ops_requests import ChangeRequest, HoldOutRequest, PromoteRequest, StartExperimentRequest, Why
from service.schemas.parsing import parse

router = APIRouter(prefix="/ops", tags=["ops"], route_class=DirectRoute)

Reason = Annotated[Why | None, Query(description="Kept in the audit.")]
DryRun = Annotated[bool, Query(description="Say what it would do, and do nothing.")]
_PROBLEMS = (401, 403, 404)
_CHANGE = (400, 409, 413, 422, *_PROBLEMS)


@router.get("/experiments", responses=answers(out.ExperimentsAnswer, *_PROBLEMS))
async def list_experiments(request: Request) -> Response:
    """Lists the experiments, the newest first, with their reports, the hold-out and the models that are held."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, await _all(service))


@router.post(
    "/experiments",
    responses=answers(out.ExperimentAnswer | out.PlannedAnswer, *_CHANGE),
    openapi_extra=takes(StartExperimentRequest),
)
async def start_experiment(request: Request, dry_run: DryRun = False) -> Response:
    """Starts an experiment on every replica.

    This replica holds the models of its arms when the answer arrives, the others as soon as they are ready.
    """
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(StartExperimentRequest, await request.body())
    if dry_run:
        return reply(request, await service.space.experiments.plan_start(body.spec()))
    started = await service.space.experiments.start(body.spec(), actor=actor, reason=body.reason)
    return reply(request, await _report(service, started))


@router.get("/experiments/{name}", responses=answers(out.ExperimentAnswer, 422, *_PROBLEMS))
async def show_experiment(request: Request, name: str) -> Response:
    """Shows what an experiment has found so far: lift, interval, always-valid p, power, and whether its shares hold."""
    service = runtime(request)
    service.access.ops(secret_of(request))
    return reply(request, await _report(service, service.space.experiments.named(name)))


@router.post(
    "/experiments/{name}/stop",
    responses=answers(out.ExperimentAnswer | out.PlannedAnswer, *_CHANGE),
    openapi_extra=takes(ChangeRequest, required=False),
)
async def stop_experiment(request: Request, name: str, dry_run: DryRun = False) -> Response:
    """Stops an experiment on every replica: its subjects are answered as everybody is."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(ChangeRequest, await request.body() or b"{}")
    if dry_run:
        return reply(request, await service.space.experiments.plan_end(name))
    await service.space.experiments.end(name, "stopped", actor=actor, reason=body.reason, cause=body.reason)
    return reply(request, await _report(service, service.space.experiments.named(name)))


@router.post(
    "/experiments/{name}/promote",
    responses=answers(out.ExperimentAnswer | out.PlannedAnswer, *_CHANGE),
    openapi_extra=takes(PromoteRequest),
)
async def promote_arm(request: Request, name: str, dry_run: DryRun = False) -> Response:
    """Gives everybody the model and the policies of an arm, and ends the experiment."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(PromoteRequest, await request.body())
    keeper = service.space.experiments
    if dry_run:
        return reply(request, await keeper.plan_promotion(name, body.arm))
    await keeper.promote(name, body.arm, actor=actor, reason=body.reason)
    return reply(request, await _report(service, keeper.named(name)))


@router.put(
    "/holdout",
    responses=answers(out.ExperimentsAnswer | out.PlannedAnswer, *_CHANGE),
    openapi_extra=takes(HoldOutRequest),
)
async def put_holdout(request: Request, dry_run: DryRun = False) -> Response:
    """Holds a share of the subjects out of all experiments and of every later model."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    body = parse(HoldOutRequest, await request.body())
    if dry_run:
        return reply(request, await service.space.experiments.plan_holdout(body.holdout()))
    await service.space.experiments.set_holdout(body.holdout(), actor=actor, reason=body.reason)
    return reply(request, await _all(service))


@router.delete("/holdout", responses=answers(out.ExperimentsAnswer | out.PlannedAnswer, 422, *_PROBLEMS))
async def delete_holdout(request: Request, reason: Reason = None, dry_run: DryRun = False) -> Response:
    """Ends the hold-out: its subjects are answered as everybody is."""
    service = runtime(request)
    actor = service.access.ops(secret_of(request))
    if dry_run:
        return reply(request, await service.space.experiments.plan_holdout(None))
    await service.space.experiments.set_holdout(None, actor=actor, reason=reason)
    return reply(request, await _all(service))


async def _reports(service: Runtime, experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    counts = await service.space.canaries.read(experiments)
    return [
        report(one, None if counts is None else counts[one.run], service.space.breakers(one)) for one in experiments
    ]


async def _report(service: Runtime, experiment: Experiment) -> dict[str, Any]:
    return (await _reports(service, [experiment]))[0]


async def _all(service: Runtime) -> dict[str, Any]:
    keeper = service.space.experiments
    newest_first = keeper.document.experiments[::-1]
    return {**keeper.to_json(), "experiments": await _reports(service, newest_first)}
