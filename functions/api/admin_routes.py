"""The public API's routes for admins alone: what a profile is used for, and operations."""

from __future__ import annotations

from fastapi import APIRouter

from functions.api import admin_models as m
from functions.api.deps import CurrentUser, PathId, Services, StrictRoute
from functions.api.routes import ERRORS
from tidegate.domain.profiles import BROKER, CREDENTIAL
from tidegate.protocol.messages import timestamp

router = APIRouter(prefix="/api", responses=ERRORS, route_class=StrictRoute)


@router.get("/credential-profiles/{profile_id}/uses", tags=["profiles"])
def credential_uses(profile_id: PathId, user: CurrentUser, services: Services) -> m.UsesAnswer:
    """Which dashboards use a credential profile, also through a broker profile: up to 50, by title. For admins."""
    return m.UsesAnswer.of(services.profile_uses(user, CREDENTIAL, profile_id))


@router.get("/broker-profiles/{profile_id}/uses", tags=["profiles"])
def broker_uses(profile_id: PathId, user: CurrentUser, services: Services) -> m.UsesAnswer:
    """Which dashboards use a broker profile: up to 50, by title. For admins."""
    return m.UsesAnswer.of(services.profile_uses(user, BROKER, profile_id))


@router.get("/operations/summary", tags=["operations"])
def summary(user: CurrentUser, services: Services) -> m.SummaryOfOperations:
    """What an operator looks at first. For admins.

    Everything is asked at the same time, for two seconds at most. What did not answer is null, and `unchecked` names
    it. `settings` are those in effect; none of them is a secret.

    Connections are counted by each full revalidation, subscriptions now. How often limits refused, and how fast values
    and revocations are, is in the metrics.
    """
    return m.SummaryOfOperations.of(services.summary(user), services.settings, services.clock.now())


@router.post("/operations/full-revalidation", tags=["operations"], status_code=202)
def full_revalidation(user: CurrentUser, services: Services) -> m.DemandAnswer:
    """Ask that every subscription be checked again now, as `make full-revalidation` does. For admins.

    It begins within seconds. One that runs already does not count: another follows it. Once a minute, whoever asks:
    above that the answer is 429.
    """
    services.full_revalidation(user)
    return m.DemandAnswer(asked_at=timestamp(services.clock.now()))


@router.get("/operations/dead-letters", tags=["operations"])
def dead_letters(user: CurrentUser, services: Services) -> m.DeadLettersList:
    """Messages that failed as often as their queue allows, by dead-letter queue. For admins."""
    return m.DeadLettersList(queues=[m.DeadLettersAnswer.of(each) for each in services.dead_letters.all(user)])


@router.post("/operations/dead-letters/{queue}:redrive", tags=["operations"])
def redrive(queue: PathId, user: CurrentUser, services: Services) -> m.RedriveAnswer:
    """Send the messages of a dead-letter queue back to the queues they came from. For admins.

    A call moves 500 at most, in 15 seconds. Remove the cause first: what fails again comes back. A message may come
    twice, which is harmless.
    """
    moved, left = services.dead_letters.move_back(user, queue)
    return m.RedriveAnswer(moved=moved, left=left)
