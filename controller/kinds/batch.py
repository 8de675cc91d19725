"""Jobs and CronJobs: defaults, validation, columns."""

from typing import Any, Final

from common.clock import parse_rfc3339
from controller.kinds import pod_defaults, pod_validation, rules
from controller.kinds.columns import (
    AGE,
    SELECTOR,
    TEMPLATE_CONTAINERS,
    TEMPLATE_IMAGES,
    at,
    computed,
    count,
    dig,
    since,
)
from controller.kinds.cron_schedule import InvalidSchedule, parse_schedule, parse_zone
from controller.kinds.kind import Column, Kind, Object
from controller.kinds.rules import Errors, forbidden, invalid, not_supported, required

CONTROLLER_UID: Final = "batch.kubernetes.io/controller-uid"
JOB_NAME: Final = "batch.kubernetes.io/job-name"
LEGACY_CONTROLLER_UID: Final = "controller-uid"
LEGACY_JOB_NAME: Final = "job-name"
BACKOFF_LIMIT_NONE: Final = 2**31 - 1
NAME_LENGTH_MAX: Final = 63
CRON_NAME_LENGTH_MAX: Final = 52
_ACTIONS: Final = ("FailJob", "FailIndex", "Ignore", "Count")


def _default_job_spec(spec: Object) -> None:
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = BACKOFF_LIMIT_NONE if spec.get("backoffLimitPerIndex") is not None else 6
    spec["completionMode"] = spec.get("completionMode") or "NonIndexed"
    if spec.get("suspend") is None:
        spec["suspend"] = False
    policy = spec.get("podFailurePolicy")
    for rule in (policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")
    if not spec.get("podReplacementPolicy"):
        spec["podReplacementPolicy"] = "TerminatingOrFailed" if policy is None else "Failed"
    pod_defaults.default_template(spec.setdefault("template", {}))


def _default_job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    labels = dig(spec, "template.metadata.labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    _default_job_spec(spec)


def _default_cron_job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec["concurrencyPolicy"] = spec.get("concurrencyPolicy") or "Allow"
    for field, value in (("suspend", False), ("successfulJobsHistoryLimit", 3), ("failedJobsHistoryLimit", 1)):
        if spec.get(field) is None:
            spec[field] = value
    _default_job_spec(spec.setdefault("jobTemplate", {}).setdefault("spec", {}))


def _prepare_job(obj: Object) -> None:
    """A selector that no other job has, unless the user answers for one (``manualSelector``)."""
    obj["status"] = {}
    spec, meta = obj["spec"], obj["metadata"]
    if spec.get("manualSelector"):
        return
    template = spec["template"].setdefault("metadata", {})
    ours = {
        CONTROLLER_UID: meta["uid"],
        LEGACY_CONTROLLER_UID: meta["uid"],
        JOB_NAME: meta["name"],
        LEGACY_JOB_NAME: meta["name"],
    }
    template["labels"] = {**(template.get("labels") or {}), **ours}
    if spec.get("selector") is None:
        spec["selector"] = {"matchLabels": {CONTROLLER_UID: meta["uid"]}}


def _reset_status(obj: Object) -> None:
    obj["status"] = {}


def _validate_job_spec(spec: Object, path: str) -> Errors:
    errors: Errors = []
    for field in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "ttlSecondsAfterFinished",
    ):
        errors += rules.non_negative(f"{path}.{field}", spec.get(field))
    mode = spec.get("completionMode")
    errors += rules.one_of(f"{path}.completionMode", mode, ("Indexed", "NonIndexed"))
    if mode == "Indexed" and spec.get("completions") is None:
        errors.append(required(f"{path}.completions", "when completion mode is Indexed"))
    if mode != "Indexed":
        errors += [
            invalid(f"{path}.{field}", spec[field], "requires indexed completion mode")
            for field in ("backoffLimitPerIndex", "maxFailedIndexes")
            if spec.get(field) is not None
        ]
        if spec.get("successPolicy"):
            errors.append(invalid(f"{path}.successPolicy", spec["successPolicy"], "requires indexed completion mode"))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errors.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    template = spec.get("template") or {}
    errors += pod_validation.validate_template(template, f"{path}.template")
    policy = dig(template, "spec.restartPolicy")
    if policy not in ("OnFailure", "Never"):
        where = f"{path}.template.spec.restartPolicy"
        errors.append(
            required(where, 'valid values: "OnFailure", "Never"')
            if policy is None
            else not_supported(where, policy, ("OnFailure", "Never"))
        )
    replacement = spec.get("podReplacementPolicy")
    errors += rules.one_of(f"{path}.podReplacementPolicy", replacement, ("Failed", "TerminatingOrFailed"))
    return errors + _validate_failure_policy(spec, path)


def _validate_failure_policy(spec: Object, path: str) -> Errors:
    policy = spec.get("podFailurePolicy")
    if policy is None:
        return []
    errors: Errors = []
    if dig(spec, "template.spec.restartPolicy") != "Never":
        detail = 'only "Never" is supported when podFailurePolicy is specified'
        where = f"{path}.template.spec.restartPolicy"
        errors.append(invalid(where, dig(spec, "template.spec.restartPolicy"), detail))
    if spec.get("podReplacementPolicy") != "Failed":
        where = f"{path}.podReplacementPolicy"
        errors.append(not_supported(where, spec.get("podReplacementPolicy"), ("Failed",)))
    for index, rule in enumerate(policy.get("rules") or ()):
        where = f"{path}.podFailurePolicy.rules[{index}]"
        errors += rules.one_of(f"{where}.action", rule.get("action"), _ACTIONS)
        if rule.get("action") == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            errors.append(invalid(f"{where}.action", "FailIndex", "requires the backoffLimitPerIndex to be set"))
        given = [key for key in ("onExitCodes", "onPodConditions") if rule.get(key)]
        if len(given) != 1:
            detail = "specifying one of OnExitCodes and OnPodConditions is required"
            both = "specifying both OnExitCodes and OnPodConditions is not supported"
            errors.append(invalid(where, rule, both if given else detail))
        codes = rule.get("onExitCodes")
        if codes:
            errors += rules.one_of(f"{where}.onExitCodes.operator", codes.get("operator"), ("In", "NotIn"))
            if not codes.get("values"):
                detail = "at least one value is required"
                errors.append(invalid(f"{where}.onExitCodes.values", codes.get("values"), detail))
            if codes.get("operator") == "In" and 0 in (codes.get("values") or ()):
                errors.append(invalid(f"{where}.onExitCodes.values", 0, "must not be 0 for the In operator"))
    return errors


def _validate_job(obj: Object) -> Errors:
    spec = obj.get("spec") or {}
    errors = _validate_job_spec(spec, "spec")
    selector = spec.get("selector")
    if selector is None:
        return [*errors, required("spec.selector")]
    errors += rules.label_selector("spec.selector", selector)
    labels = dig(spec, "template.metadata.labels", {})
    if not errors and not rules.selects(selector, labels):
        errors.append(invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    name = obj["metadata"].get("name", "")
    if spec.get("completionMode") == "Indexed" and len(name) > NAME_LENGTH_MAX - len("-0"):
        detail = f"must be no more than {NAME_LENGTH_MAX - 2} characters: its pods' host names end with their index"
        errors.append(invalid("metadata.name", name, detail))
    return errors


def _validate_job_update(obj: Object, old: Object) -> Errors:
    new_spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
    errors: Errors = []
    fixed = ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    elastic = new_spec.get("completionMode") == "Indexed" and new_spec.get("completions") == new_spec.get("parallelism")
    if not elastic:
        fixed.append("completions")
    for field in fixed:
        errors += rules.immutable(f"spec.{field}", new_spec.get(field), old_spec.get(field))
    if new_spec.get("template") != old_spec.get("template") and not _template_may_change(new_spec, old_spec, old):
        errors += rules.immutable("spec.template", new_spec.get("template"), old_spec.get("template"))
    return errors


def _template_may_change(new_spec: Object, old_spec: Object, old: Object) -> bool:
    """Where pods of a job that has not started may go, is for a queueing controller to say (KEP-2926)."""
    if not old_spec.get("suspend") or dig(old, "status.startTime"):
        return False

    def rest(template: Object) -> Object:
        spec = {
            key: value
            for key, value in (template.get("spec") or {}).items()
            if key not in ("affinity", "nodeSelector", "tolerations", "schedulingGates")
        }
        meta = {k: v for k, v in (template.get("metadata") or {}).items() if k not in ("labels", "annotations")}
        return {"metadata": meta, "spec": spec}

    return rest(new_spec.get("template") or {}) == rest(old_spec.get("template") or {})


def _validate_cron_job(obj: Object) -> Errors:
    spec = obj.get("spec") or {}
    errors: Errors = []
    schedule = spec.get("schedule") or ""
    if not schedule:
        errors.append(required("spec.schedule"))
    else:
        errors += _parsed("spec.schedule", schedule, parse_schedule)
        if "TZ=" in schedule:
            detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            errors = [invalid("spec.schedule", schedule, detail)]
    if spec.get("timeZone") is not None:
        zone = spec["timeZone"]
        if zone.lower() in ("", "local"):
            errors.append(invalid("spec.timeZone", zone, "timeZone must be an explicit time zone"))
        else:
            errors += _parsed("spec.timeZone", zone, parse_zone)
    errors += rules.one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace"))
    for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += rules.non_negative(f"spec.{field}", spec.get(field))
    job = dig(spec, "jobTemplate.spec", {})
    errors += _validate_job_spec(job, "spec.jobTemplate.spec")
    if job.get("manualSelector"):
        errors.append(not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
    elif job.get("selector") is not None:
        errors.append(forbidden("spec.jobTemplate.spec.selector", "`selector` will be auto-generated"))
    name = obj["metadata"].get("name", "")
    if len(name) > CRON_NAME_LENGTH_MAX:
        errors.append(invalid("metadata.name", name, f"must be no more than {CRON_NAME_LENGTH_MAX} characters"))
    return errors


def _parsed(path: str, text: str, parse: Any) -> Errors:
    try:
        parse(text)
    except InvalidSchedule as err:
        return [invalid(path, text, str(err))]
    return []


def _job_status(obj: Object) -> str:
    held = {each["type"] for each in dig(obj, "status.conditions", ()) if each.get("status") == "True"}
    for condition in ("Complete", "Failed"):
        if condition in held:
            return condition
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for condition in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if condition in held:
            return condition
    return "Running"


def _job_completions(obj: Object) -> str:
    done, wanted = dig(obj, "status.succeeded", 0), dig(obj, "spec.completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    parallelism = dig(obj, "spec.parallelism", 0)
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _job_duration(obj: Object, now: float) -> str:
    started, ended = dig(obj, "status.startTime"), dig(obj, "status.completionTime")
    return since(started, parse_rfc3339(ended) if ended else now) if started else ""


def _last_schedule(obj: Object, now: float) -> str:
    last = dig(obj, "status.lastScheduleTime")
    return since(last, now) if last else "<none>"


JOB: Final = Kind(
    group="batch",
    version="v1",
    kind="Job",
    plural="jobs",
    schema="io.k8s.api.batch.v1.Job",
    singular="job",
    categories=("all",),
    subresources=("status",),
    columns=(
        computed("Status", _job_status),
        computed("Completions", _job_completions),
        Column("Duration", "string", _job_duration),
        AGE,
        TEMPLATE_CONTAINERS,
        TEMPLATE_IMAGES,
        SELECTOR,
    ),
    selectable_fields={"status.successful": lambda obj: str(dig(obj, "status.succeeded", 0))},
    default=_default_job,
    prepare_create=_prepare_job,
    validate=_validate_job,
    validate_update=_validate_job_update,
)

CRON_JOB: Final = Kind(
    group="batch",
    version="v1",
    kind="CronJob",
    plural="cronjobs",
    schema="io.k8s.api.batch.v1.CronJob",
    singular="cronjob",
    short_names=("cj",),
    categories=("all",),
    subresources=("status",),
    columns=(
        at("Schedule", "spec.schedule"),
        at("Timezone", "spec.timeZone", empty="<none>"),
        computed("Suspend", lambda obj: str(bool(dig(obj, "spec.suspend")))),
        count("Active", "status.active"),
        Column("Last Schedule", "string", _last_schedule),
        AGE,
    ),
    default=_default_cron_job,
    prepare_create=_reset_status,
    validate=_validate_cron_job,
)

KINDS: Final = (CRON_JOB, JOB)
