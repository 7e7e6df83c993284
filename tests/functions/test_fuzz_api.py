"""The API under generated requests, also in sequences: whatever is sent, it is answered, and never with a fault.

Requests are made from the API's own OpenAPI description: valid ones, and such as are almost valid. Sequences go on with
what earlier answers held, such as ids. Every request comes from an admin, so that no right ends it early.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup

from functions.api.app import create_app
from functions.api.main import make_handler
from functions.api.wiring import api_services
from ops.admin import first_admin
from tests.deployment import SECRETS, deployment
from tests.functions.test_api import PASSWORD, Api

pytestmark = pytest.mark.full

#: Requests of each kind for each operation; sequences, and steps of a sequence. Together a minute or two of one core.
REQUESTS, SEQUENCES, STEPS = 15, 40, 10
#: Nothing is shrunk: what failed is printed as it was sent.
BOUNDED = settings(
    deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture
def headers(deployed: Mapping[str, str]) -> dict[str, str]:
    return headers_of_admin(deployed)


def headers_of_admin(deployed: Mapping[str, str]) -> dict[str, str]:
    """Those of an admin, who is nobody that the requests may name."""
    first_admin(deployed, "admin@x.example", PASSWORD)
    admin = Api(make_handler(api_services(deployed)), deployed).login("admin@x.example")
    return {"Authorization": f"Bearer {admin.token}"}


def app_over(deployed: Mapping[str, str]) -> FastAPI:
    """The API. Its limits let a run through that comes from one address."""
    return create_app(api_services({**deployed, **dict.fromkeys(_RATES, "1000000")}))


def described(deployed: Mapping[str, str]) -> Any:
    """The API and its description."""
    return schemathesis.openapi.from_asgi("/api/openapi.json", app_over(deployed))


_RATES = (
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_USER_PER_MIN",
    "GATEWAY_INTROSPECTION_RATE_LIMIT_PER_MIN",
    "GATEWAY_REVOKED_TOKENS_RATE_LIMIT_PER_MIN",
)


def authorized(case: Any, headers: Mapping[str, str]) -> dict[str, str]:
    """The internal API takes the service token, and the public API a login."""
    if case.path.startswith("/internal/"):
        return {"Authorization": f"Bearer {SECRETS['GATEWAY_SERVICE_TOKEN_ARN']}"}
    return dict(headers)


def test_no_request_is_a_fault(deployed: Mapping[str, str], headers: dict[str, str]) -> None:
    operations = [result.ok() for result in described(deployed).get_all_operations()]
    assert len(operations) > 25
    sent: set[str] = set()
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(BOUNDED, max_examples=REQUESTS)
            @given(operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                case.call_and_validate(headers=authorized(case, headers), checks=[not_a_server_error])

            with suppress(Unsatisfiable):  # an operation that takes nothing has nothing that can be wrong
                send()
                sent.add(operation.label)
    assert sent == {operation.label for operation in operations}


class Anew:
    """The API over fresh tables each time that it begins anew, with a fresh admin.

    What a sequence was answered must not depend on the sequences before it: requests are made from answers, and where
    the same requests are answered otherwise, generating more of them fails.
    """

    def __init__(self, moto_url: str) -> None:
        self._moto_url = moto_url
        self.begin()

    def begin(self) -> None:
        env = deployment(self._moto_url)
        self._app, self.headers = app_over(env), headers_of_admin(env)

    async def __call__(self, *request: Any) -> None:
        await self._app(*request)


def test_no_sequence_ends_in_a_fault(moto_url: str) -> None:
    anew = Anew(moto_url)

    class Sequence(schemathesis.openapi.from_asgi("/api/openapi.json", anew).as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            super().setup()
            anew.begin()

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": authorized(case, anew.headers)}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            case.validate_response(response, checks=[not_a_server_error])

    run_state_machine_as_test(Sequence, settings=settings(BOUNDED, max_examples=SEQUENCES, stateful_step_count=STEPS))


def test_a_fault_would_be_seen(
    deployed: Mapping[str, str], headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("tidegate.usecases.control_plane.read_audit.check_admin", broken)
    operation = described(deployed)["/api/operations/audit"]["GET"]

    @settings(BOUNDED, max_examples=1)
    @given(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def send(case: Any) -> None:
        case.call_and_validate(headers=authorized(case, headers), checks=[not_a_server_error])

    with pytest.raises(FailureGroup):
        send()
