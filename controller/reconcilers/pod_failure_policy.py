"""What a Job's ``podFailurePolicy`` says about a failed pod (KEP-3329). Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from controller.kinds.kind import Object


@dataclass(frozen=True, slots=True)
class Judgement:
    """``action`` is ``FailJob``, ``FailIndex``, ``Ignore`` or ``Count``; ``message`` tells users what matched."""

    action: str
    message: str = ""


COUNT = Judgement("Count")


def judge(policy: Object | None, pod: Object) -> Judgement:
    """The first rule that matches; without one the failure counts."""
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for index, rule in enumerate((policy or {}).get("rules") or ()):
        action = str(rule["action"])
        found = _by_exit_code(rule.get("onExitCodes"), pod)
        if found is not None:
            container, code = found
            text = f"Container {container} for pod {name} failed with exit code {code} matching {action} rule"
            return Judgement(action, f"{text} at index {index}")
        condition = _by_condition(rule.get("onPodConditions") or (), pod)
        if condition:
            return Judgement(action, f"Pod {name} has condition {condition} matching {action} rule at index {index}")
    return COUNT


def _by_exit_code(wanted: Object | None, pod: Object) -> tuple[str, int] | None:
    if not wanted:
        return None
    for container, code in _exits(pod):
        if wanted.get("containerName") not in (None, container) or code == 0:
            continue
        if (code in wanted["values"]) is (wanted["operator"] == "In"):
            return container, code
    return None


def _exits(pod: Object) -> Iterator[tuple[str, int]]:
    status = pod.get("status") or {}
    for field in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(field) or ():
            ended = (each.get("state") or {}).get("terminated")
            if ended is not None:
                yield str(each["name"]), int(ended.get("exitCode", 0))


def _by_condition(patterns: list[Object] | tuple[Object, ...], pod: Object) -> str:
    have = {each.get("type"): each.get("status") for each in (pod.get("status") or {}).get("conditions") or ()}
    return next((str(p["type"]) for p in patterns if have.get(p["type"]) == p.get("status", "True")), "")
