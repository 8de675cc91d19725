"""Failures read exactly as apimachinery's."""

from controller.api import status
from controller.kinds.kind import FieldError, ResourceKey

PODS = ResourceKey("", "pods")
DEPLOYMENTS = ResourceKey("apps", "deployments")


def test_messages() -> None:
    assert status.not_found(PODS, "x").message == 'pods "x" not found'
    assert status.not_found(DEPLOYMENTS, "x").message == 'deployments.apps "x" not found'
    assert status.already_exists(PODS, "x").message == 'pods "x" already exists'
    assert status.conflict(DEPLOYMENTS, "x").message == (
        'Operation cannot be fulfilled on deployments.apps "x": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


def test_one_field_error_stands_alone_several_in_brackets() -> None:
    one = FieldError("FieldValueInvalid", "spec.replicas", "must be greater than or equal to 0", -1)
    two = FieldError("FieldValueRequired", "spec.selector", "")
    assert status.invalid("apps", "Deployment", "x", [one]).message == (
        'Deployment.apps "x" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0'
    )
    both = status.invalid("apps", "Deployment", "x", [one, two])
    assert both.message == (
        'Deployment.apps "x" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, '
        "spec.selector: Required value]"
    )
    assert both.status()["details"] == {
        "name": "x",
        "group": "apps",
        "kind": "Deployment",
        "causes": [
            {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: -1: must be greater than or equal to 0",
                "field": "spec.replicas",
            },
            {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"},
        ],
    }
    assert (both.code, both.reason) == (422, "Invalid")


def test_strings_are_quoted_and_duplicates_need_no_detail() -> None:
    error = FieldError("FieldValueDuplicate", "spec.ports[1].name", "", "http")
    assert status.field_error_text(error) == 'spec.ports[1].name: Duplicate value: "http"'
