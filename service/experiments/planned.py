"""What a change of the experiments would do, in sentences, so that it is shown before it is done. Pure."""

from __future__ import annotations

from service.experiments.document import BUCKETS, Arm, Document, Experiment, ExperimentSpec, Guardrails, HoldOut


def start(spec: ExperimentSpec, started: Experiment) -> list[str]:
    """Returns what a start would do.

    Args:
        spec: What the operator wants.
        started: What it would be.
    """
    if spec.kind == "shadow":
        return [
            f"start the shadow {spec.name}: {spec.share:.2%} of the requests run on {_what(spec.arms[0])} as well, "
            "behind their answers and in spare time only",
            "show nobody what it lists: lists and times of both are compared",
        ]
    let_in = started.portion * (started.buckets[1] - started.buckets[0]) / BUCKETS
    would = [
        f"start {spec.name} in the layer {spec.layer} with {spec.share:.2%} of its subjects, of which "
        f"{started.portion:.0%} are let in first"
    ]
    would += [f"give {arm.share * let_in:.2%} of the subjects to the arm {arm.name}: {_what(arm)}" for arm in spec.arms]
    if len(spec.steps) > 1:
        steps = ", ".join(f"{step:.0%}" for step in spec.steps[1:])
        would.append(f"let in {steps} after {spec.step_lists:,} lists of each arm")
    return would + ([] if spec.guardrails is None else [_back(spec.guardrails)])


def end(document: Document, experiment: Experiment, served: str) -> list[str]:
    """Returns what the end of a running experiment would do.

    Args:
        document: All experiments.
        experiment: The one that ends.
        served: The version in service then.
    """
    if experiment.kind == "shadow":
        would = [f"end the shadow {experiment.name}: nothing runs on its candidate any more"]
    else:
        share = experiment.portion * (experiment.buckets[1] - experiment.buckets[0]) / BUCKETS
        would = [
            f"end {experiment.name}: all its subjects, {share:.2%} of the layer {experiment.layer}, are answered as "
            "everybody is"
        ]
    return would + _let_go(document, document.changed(experiment.run, state="stopped"), served)


def promotion(document: Document, experiment: Experiment, arm: Arm, served: str) -> list[str]:
    """Returns what the promotion of an arm would do.

    Args:
        document: All experiments.
        experiment: The running experiment.
        arm: The arm.
        served: The version in service now.
    """
    would = []
    if arm.policies is not None:
        would.append(f"set the policies of the segments {', '.join(arm.policies.names)} for everybody")
    if arm.model is not None and arm.model != served:
        would.append(f"activate the model {arm.model} for everybody, instead of {served}")
    return would + end(document, experiment, arm.model or served)


def hold_out(document: Document, wanted: HoldOut | None, served: str) -> list[str]:
    """Returns what a change of the hold-out would do.

    Args:
        document: All experiments.
        wanted: The hold-out; None to end it.
        served: The version in service.
    """
    if wanted is None and document.holdout is None:
        return ["do nothing: no subject is held out"]
    if wanted is None:
        would = ["end the hold-out: its subjects are answered as everybody is, and may be in experiments"]
    else:
        would = [
            f"hold {wanted.share:.2%} of all subjects out of every experiment and of every later model: {wanted.model} "
            "answers them"
        ]
    return would + _let_go(document, document.model_copy(update={"holdout": wanted}), served)


def _back(rails: Guardrails) -> str:
    clicks = ", or fewer clicks" if rails.click_through else ""
    return (
        f"go back by itself when, beside the first arm, another one has {rails.late:.1%} more late answers, "
        f"{rails.failed:.1%} more failed ones, {rails.below:.1%} more from below the model{clicks}"
    )


def _let_go(before: Document, after: Document, served: str) -> list[str]:
    """The models that would not be held any more."""
    gone = [version for version in before.models if version not in after.models and version != served]
    return [f"let go of the model {version} on each replica" for version in gone]


def _what(arm: Arm) -> str:
    parts = [
        f"the model {arm.model}" if arm.model else "",
        f"policies of {', '.join(arm.policies.names)}" if arm.policies else "",
        f"the ranker weights {arm.ranker}" if arm.ranker else "",
    ]
    return " and ".join(part for part in parts if part) or "as for everybody"
