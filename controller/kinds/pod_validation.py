"""Validation of pod specs, in upstream's words and paths (``core/validation``). Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final

from common.quantity import InvalidQuantity, Quantity
from controller.kinds import container_validation, rules
from controller.kinds.kind import Object
from controller.kinds.rules import Errors, forbidden, invalid, not_supported, required

_DNS_POLICIES: Final = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_RESTART_POLICIES: Final = ("Always", "Never", "OnFailure")
_EFFECTS: Final = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_SOURCES: Final = frozenset(
    (
        *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap", "csi", "downwardAPI"),
        *("emptyDir", "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs"),
        *("hostPath", "image", "iscsi", "nfs", "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume"),
        *("projected", "quobyte", "rbd", "scaleIO", "secret", "storageos", "vsphereVolume"),
    )
)

_SYSCTL_SEGMENT: Final = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL: Final = rf"({_SYSCTL_SEGMENT}[\./])*{_SYSCTL_SEGMENT}"
_SYSCTL_CHARS_MAX: Final = 253
_IPC_SYSCTLS: Final = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def validate_pod_spec(spec: Object, path: str = "spec") -> Errors:
    """Everything wrong with a ``PodSpec`` on its own."""
    errors, volumes = _volumes(spec.get("volumes") or [], f"{path}.volumes")
    errors += container_validation.containers(spec, volumes, path)
    errors += rules.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES)
    errors += rules.one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    errors += _dns(spec, path)
    grace = spec.get("terminationGracePeriodSeconds")
    errors += rules.non_negative(f"{path}.terminationGracePeriodSeconds", grace)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        errors.append(invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    errors += rules.labels(f"{path}.nodeSelector", spec.get("nodeSelector"))
    for key, problems in (
        ("serviceAccountName", rules.subdomain_problems),
        ("nodeName", rules.subdomain_problems),
        ("priorityClassName", rules.subdomain_problems),
        ("runtimeClassName", rules.subdomain_problems),
        ("hostname", rules.label_problems),
        ("subdomain", rules.label_problems),
    ):
        errors += rules.name(f"{path}.{key}", spec.get(key), problems, need=False)
    for index, toleration in enumerate(spec.get("tolerations") or []):
        errors += _toleration(toleration, f"{path}.tolerations[{index}]")
    for index, alias in enumerate(spec.get("hostAliases") or []):
        errors += rules.address(f"{path}.hostAliases[{index}].ip", alias.get("ip") or "")
        for host in alias.get("hostnames") or []:
            errors += rules.name(f"{path}.hostAliases[{index}].hostnames", host, rules.subdomain_problems)
    for index, secret in enumerate(spec.get("imagePullSecrets") or []):
        if not secret.get("name"):
            errors.append(required(f"{path}.imagePullSecrets[{index}].name"))
    errors += _affinity(spec.get("affinity") or {}, f"{path}.affinity")
    errors += _spread(spec, path)
    errors += _sysctls(spec, f"{path}.securityContext.sysctls")
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid(f"{path}.shareProcessNamespace", True, detail))
    return errors


def validate_template(template: Object, path: str) -> Errors:
    """A ``PodTemplateSpec`` below ``path``."""
    meta = template.get("metadata") or {}
    errors = rules.labels(f"{path}.labels", meta.get("labels"))
    errors += rules.annotations(f"{path}.annotations", meta.get("annotations"))
    return errors + validate_pod_spec(template.get("spec") or {}, f"{path}.spec")


def _dns(spec: Object, path: str) -> Errors:
    config = spec.get("dnsConfig")
    if config is None:
        if spec.get("dnsPolicy") == "None":
            return [
                required(
                    f"{path}.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
                )
            ]
        return []
    errors: Errors = []
    servers = config.get("nameservers") or []
    if spec.get("dnsPolicy") == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        errors.append(required(f"{path}.dnsConfig.nameservers", detail))
    if len(servers) > 3:
        errors.append(invalid(f"{path}.dnsConfig.nameservers", servers, "must not have more than 3 nameservers"))
    for index, server in enumerate(servers):
        errors += rules.address(f"{path}.dnsConfig.nameservers[{index}]", server)
    return errors


def _toleration(toleration: Mapping[str, Any], path: str) -> Errors:
    errors: Errors = []
    key, operator, effect = toleration.get("key"), toleration.get("operator") or "Equal", toleration.get("effect")
    if key:
        errors += [invalid(f"{path}.key", key, text) for text in rules.qualified_problems(key)]
    elif operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        errors.append(invalid(f"{path}.operator", operator, detail))
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        errors.append(invalid(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
    if operator == "Exists" and toleration.get("value"):
        errors.append(invalid(f"{path}.operator", toleration, "value must be empty when `operator` is 'Exists'"))
    elif operator not in ("Exists", "Equal"):
        errors.append(not_supported(f"{path}.operator", operator, ("Equal", "Exists")))
    if effect:
        errors += rules.one_of(f"{path}.effect", effect, _EFFECTS)
    return errors


def _affinity(affinity: Mapping[str, Any], path: str) -> Errors:
    errors: Errors = []
    node = affinity.get("nodeAffinity") or {}
    must = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if must is not None and not must.get("nodeSelectorTerms"):
        here = f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        errors.append(required(here, "must have at least one node selector term"))
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        for index, term in enumerate(terms.get("requiredDuringSchedulingIgnoredDuringExecution") or []):
            here = f"{path}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"
            errors += _affinity_term(term, here)
        for index, weighted in enumerate(terms.get("preferredDuringSchedulingIgnoredDuringExecution") or []):
            here = f"{path}.{kind}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            if not 1 <= weighted.get("weight", 0) <= 100:
                errors.append(invalid(f"{here}.weight", weighted.get("weight", 0), "must be in the range 1-100"))
            errors += _affinity_term(weighted.get("podAffinityTerm") or {}, f"{here}.podAffinityTerm")
    return errors


def _affinity_term(term: Mapping[str, Any], path: str) -> Errors:
    errors = rules.label_selector(f"{path}.labelSelector", term.get("labelSelector"))
    if not term.get("topologyKey"):
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    else:
        key = term["topologyKey"]
        errors += [invalid(f"{path}.topologyKey", key, text) for text in rules.qualified_problems(key)]
    return errors


def _spread(spec: Object, path: str) -> Errors:
    errors: Errors = []
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or []):
        here = f"{path}.topologySpreadConstraints[{index}]"
        if constraint.get("maxSkew", 0) <= 0:
            errors.append(invalid(f"{here}.maxSkew", constraint.get("maxSkew", 0), "must be greater than zero"))
        if not constraint.get("topologyKey"):
            errors.append(required(f"{here}.topologyKey", "can not be empty"))
        allowed = ("DoNotSchedule", "ScheduleAnyway")
        errors += rules.one_of(f"{here}.whenUnsatisfiable", constraint.get("whenUnsatisfiable"), allowed)
        errors += rules.label_selector(f"{here}.labelSelector", constraint.get("labelSelector"))
    return errors


def _sysctls(spec: Object, path: str) -> Errors:
    """Names that a kernel could have, once each; none of a namespace that the pod shares with its host."""
    errors: Errors = []
    seen: set[str] = set()
    for index, each in enumerate((spec.get("securityContext") or {}).get("sysctls") or []):
        here, name = f"{path}[{index}].name", each.get("name") or ""
        if not name:
            errors.append(required(here))
        elif len(name) > _SYSCTL_CHARS_MAX or not re.fullmatch(_SYSCTL, name):
            detail = f"must have at most {_SYSCTL_CHARS_MAX} characters and match regex ^{_SYSCTL}$"
            errors.append(invalid(here, name, detail))
        elif name in seen:
            errors.append(rules.duplicate(here, name))
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            errors.append(invalid(here, name, "may not be set when 'hostNetwork' is true"))
        if spec.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
            errors.append(invalid(here, name, "may not be set when 'hostIPC' is true"))
    return errors


# ---- volumes -------------------------------------------------------------------------------------------------


def _volumes(volumes: list[Object], path: str) -> tuple[Errors, set[str]]:
    errors: Errors = []
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        here, name = f"{path}[{index}]", volume.get("name") or ""
        errors += rules.name(f"{here}.name", name, rules.label_problems)
        if name in names:
            errors.append(rules.duplicate(f"{here}.name", name))
        names.add(name)
        errors += _volume_source(volume, here)
    return errors, names


def _volume_source(volume: Mapping[str, Any], path: str) -> Errors:
    sources = [key for key in volume if key in _SOURCES]
    if not sources:
        return [required(path, "must specify a volume type")]
    if len(sources) > 1:
        return [forbidden(f"{path}.{sources[1]}", "may not specify more than 1 volume type")]
    source: Mapping[str, Any] = volume[sources[0]] or {}
    here = f"{path}.{sources[0]}"
    match sources[0]:
        case "configMap":
            errors = [] if source.get("name") else [required(f"{here}.name")]
            return errors + _items(source, here)
        case "secret":
            errors = [] if source.get("secretName") else [required(f"{here}.secretName")]
            return errors + _items(source, here)
        case "hostPath":
            return [] if source.get("path") else [required(f"{here}.path")]
        case "persistentVolumeClaim":
            return [] if source.get("claimName") else [required(f"{here}.claimName")]
        case "emptyDir":
            return _empty_dir(source, here)
        case "nfs":
            errors = [required(f"{here}.{key}") for key in ("server", "path") if not source.get(key)]
            if source.get("path") and not source["path"].startswith("/"):
                errors.append(invalid(f"{here}.path", source["path"], "must be an absolute path"))
            return errors
        case "projected":
            return _projected(source, here)
        case "downwardAPI":
            return _downward(source, here)
        case _:
            return []


def _empty_dir(source: Mapping[str, Any], path: str) -> Errors:
    limit = source.get("sizeLimit")
    if limit is None:
        return []
    try:
        bad = Quantity.parse(limit).nanos < 0
    except InvalidQuantity:
        bad = True
    return [forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")] if bad else []


def _mode(source: Mapping[str, Any], key: str, path: str) -> Errors:
    mode = source.get(key)
    if mode is None or 0 <= mode <= 0o777:
        return []
    return [invalid(f"{path}.{key}", mode, "must be a number between 0 and 0777 (octal), both inclusive")]


def _items(source: Mapping[str, Any], path: str) -> Errors:
    errors = _mode(source, "defaultMode", path)
    for index, item in enumerate(source.get("items") or []):
        here = f"{path}.items[{index}]"
        if not item.get("key"):
            errors.append(required(f"{here}.key"))
        errors += _inner_path(item, here)
        errors += _mode(item, "mode", here)
    return errors


def _inner_path(item: Mapping[str, Any], path: str) -> Errors:
    found = item.get("path") or ""
    if not found:
        return [required(f"{path}.path")]
    errors: Errors = []
    if found.startswith("/"):
        errors.append(invalid(f"{path}.path", found, "must be a relative path"))
    if ".." in found.split("/"):
        errors.append(invalid(f"{path}.path", found, "must not contain '..'"))
    elif found.startswith(".."):
        errors.append(invalid(f"{path}.path", found, "must not start with '..'"))
    return errors


def _downward(source: Mapping[str, Any], path: str) -> Errors:
    errors = _mode(source, "defaultMode", path)
    for index, item in enumerate(source.get("items") or []):
        here = f"{path}.items[{index}]"
        errors += _inner_path(item, here)
        if item.get("fieldRef") and item.get("resourceFieldRef"):
            errors.append(
                invalid(here, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
            )
        elif not item.get("fieldRef") and not item.get("resourceFieldRef"):
            errors.append(required(here, "one of fieldRef and resourceFieldRef is required"))
    return errors


def _projected(source: Mapping[str, Any], path: str) -> Errors:
    errors = _mode(source, "defaultMode", path)
    for index, part in enumerate(source.get("sources") or []):
        here = f"{path}.sources[{index}]"
        if len(part) > 1:
            errors.append(forbidden(here, "may not specify more than 1 volume type"))
        for key in ("configMap", "secret"):
            if key in part:
                errors += [] if part[key].get("name") else [required(f"{here}.{key}.name")]
                errors += _items(part[key], f"{here}.{key}")
        token = part.get("serviceAccountToken")
        if token is not None:
            seconds = token.get("expirationSeconds", 3600)
            if seconds < 600:
                detail = "may not specify a duration less than 10 minutes"
                errors.append(invalid(f"{here}.serviceAccountToken.expirationSeconds", seconds, detail))
            if not token.get("path"):
                errors.append(required(f"{here}.serviceAccountToken.path"))
        if "downwardAPI" in part:
            errors += _downward(part["downwardAPI"], f"{here}.downwardAPI")
    return errors
