"""Clients get the first form that they accept and we have."""

import pytest

from controller.api.negotiate import negotiate
from controller.api.status import ApiError

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def test_a_table_is_a_form_of_stored_objects_only() -> None:
    assert negotiate(TABLE).form == "table"
    assert negotiate(f"{TABLE},application/json", plain=True).form == "object"
    with pytest.raises(ApiError) as caught:
        negotiate(TABLE, plain=True)
    assert (caught.value.code, caught.value.reason) == (406, "NotAcceptable")


def test_clients_that_like_protobuf_better_take_json() -> None:
    assert negotiate("application/vnd.kubernetes.protobuf, */*") == negotiate("application/json")
