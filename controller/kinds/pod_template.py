"""PodTemplates: a pod's template as an object of its own. Nothing makes pods of it."""

from typing import Final

from controller.kinds import pod_defaults, pod_validation
from controller.kinds.columns import AGE, computed, dig, format_labels
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors


def _default(obj: Object) -> None:
    pod_defaults.default_template(obj.setdefault("template", {}))


def _validate(obj: Object) -> Errors:
    return pod_validation.validate_template(obj["template"], "template")


def _joined(obj: Object, field: str) -> str:
    return ",".join(str(each.get(field, "")) for each in dig(obj, "template.spec.containers", []))


KINDS: Final = (
    Kind(
        group="",
        version="v1",
        kind="PodTemplate",
        plural="podtemplates",
        schema="io.k8s.api.core.v1.PodTemplate",
        singular="podtemplate",
        columns=(
            computed("Containers", lambda obj: _joined(obj, "name")),
            computed("Images", lambda obj: _joined(obj, "image")),
            computed("Pod Labels", lambda obj: format_labels(dig(obj, "template.metadata.labels"))),
            AGE,
        ),
        generation_fields=("template",),
        default=_default,
        validate=_validate,
    ),
)
