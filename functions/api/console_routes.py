"""What the console asks while somebody edits or shares a dashboard. Nothing here changes one.

Invariant of this file: every route is limited for each user, before anything is read.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from functions.api import console_models as m
from functions.api.deps import CurrentUser, PathId, Services, StrictRoute
from functions.api.models import DocumentRequest
from functions.api.routes import ERRORS
from functions.api.wiring import ApiServices
from tidegate.domain.document_warnings import MOST_WARNINGS, warnings_of
from tidegate.domain.documents import InvalidDocument, check_document
from tidegate.domain.users import User

router = APIRouter(prefix="/api", responses=ERRORS, route_class=StrictRoute)

#: How often a user may ask for profiles in a minute. The editor asks when it is opened.
PROFILES_PER_USER = 60
#: How often a user may check a topic in a minute. The dialog asks when a person pauses in typing.
TOPICS_PER_USER = 120
#: How often a user may preview a datasource in a minute. Each may hold a connection, and this process, for ten seconds.
PREVIEWS_PER_USER = 20
#: How often a user may ask what keeps viewers out in a minute. The dialog asks when it is opened, and after a change.
CHECKS_PER_USER = 60
#: How often a user may count the viewers of a dashboard in a minute. A page that shows them asks a few times.
COUNTS_PER_USER = 30
#: How often a user may have a document validated in a minute. An editor asks after a change, an import once.
VALIDATIONS_PER_USER = 60


def _limit(services: ApiServices, user: User, scope: str, what: str, per_minute: int) -> None:
    """Count one call of the user. `what`: as a refusal says it. Raises `LimitReached`, `LimiterUnavailable`."""
    refusal = f"Too many requests of this user for {what}: at most {per_minute} in a minute"
    services.rates.consume(scope, user.user_id, per_minute, refusal=refusal)


@router.get("/dashboards/{dashboard_id}/usable-profiles", tags=["editing"])
def usable_profiles(dashboard_id: PathId, user: CurrentUser, services: Services) -> m.UsableProfilesAnswer:
    """The profiles that the caller may attach to a dashboard. For its editors, its managers and its owner.

    Editors and admins are shown all. Who edits by the dashboard's ACL only, and is neither, is shown those for public
    use: with any other, saving is answered with 403. An answer holds no secret, no URL of a broker and no certificate.

    A user may ask 60 times in a minute.
    """
    _limit(services, user, "console-profiles-user", "profiles", PROFILES_PER_USER)
    return m.UsableProfilesAnswer.of(services.console.usable_profiles(user, dashboard_id))


@router.post("/topics:check", tags=["editing"])
def check_topic(body: m.TopicCheckRequest, user: CurrentUser, services: Services) -> m.TopicCheckAnswer:
    """Check a topic filter while it is typed. The code that saves and subscribes decides.

    With `dashboardId` for who may edit that dashboard, without for editors and admins. Who is neither may check it at
    brokers for public use: at any other the answer is 403, whether there is such a profile or not.

    It says nothing of what devices publish. A topic that is fed may be silent. A user may check 120 times in a minute.
    """
    _limit(services, user, "console-topics-user", "topics", TOPICS_PER_USER)
    found = services.console.check_topic(user, body.dashboard_id, body.broker_profile_id, body.topic)
    return m.TopicCheckAnswer.of(found)


@router.post("/datasources:preview", tags=["editing"], response_model=m.PreviewAnswer)
def preview(body: m.PreviewRequest, user: CurrentUser, services: Services) -> Response:
    """Show the first messages of a datasource before it is saved. For who may edit the dashboard.

    What saving would refuse is refused here: 400 `invalid_document` or `datasource_unresolved`, and 403 for a profile
    that the caller may not use. What viewers would be refused, and what the source refuses, is a `fault` in a good
    answer.

    The source is connected to once, as the relay does, and left before the answer is given. The answer comes with five
    messages, a second after the first one, with a fault, or after ten seconds. A source that answers and says nothing
    until then gives neither messages nor a fault. A message that is larger than `REALTIME_MAX_MESSAGE_BYTES`, or is not
    JSON where JSON is asked for, is a fault.

    Nobody connects to IoT Core: the last values are answered at once where there are any; `at` says how old each is.
    They are kept for topics that a datasource asks for, and from now on, for a minute or longer, for this one. Without
    any, they are looked at twice a second. So a device that published before, and never while somebody asked, shows
    nothing. There a message that is too large, or is not JSON where JSON is asked for, is not seen.

    A user may have 20 previews in a minute, and 2 at the same time. An upstream that the owner's limit has no room for
    is a fault. The audit log counts previews: `datasource.previewed`.
    """
    _limit(services, user, "console-previews-user", "previews", PREVIEWS_PER_USER)
    found = services.console.preview(user, body.dashboard_id, body.type, body.settings)
    return Response(m.preview_answer(found), media_type="application/json")


@router.post("/dashboards/{dashboard_id}/public-check", tags=["sharing"])
def public_check(dashboard_id: PathId, user: CurrentUser, services: Services) -> m.PublicCheckAnswer:
    """Which datasources viewers by link and of a public dashboard would be refused now, and why. For its managers and
    its owner.

    The code that decides a subscribe decides here. A private dashboard is looked at as if everybody might see it, so
    that the answer is known before it is shared. A datasource that is switched off is not looked at, as nobody asks for
    it. Limits are not either: they depend on who else is there.

    A user may ask 60 times in a minute.
    """
    _limit(services, user, "console-public-checks-user", "public checks", CHECKS_PER_USER)
    return m.PublicCheckAnswer.of(services.console.public_check(user, dashboard_id))


@router.get("/dashboards/{dashboard_id}/viewers", tags=["sharing"])
def viewers(dashboard_id: PathId, user: CurrentUser, services: Services) -> m.ViewersAnswer:
    """How many watch a dashboard now. For its editors, its managers and its owner. Counts only: no address, no name.

    At most 4,000 subscriptions are read, which costs some 250 read units; an empty dashboard costs four. Beyond that
    `more` is true, and the counts are those of an even part. The answer may be a second old.

    A user may ask 30 times in a minute.
    """
    _limit(services, user, "console-viewers-user", "viewers", COUNTS_PER_USER)
    return m.ViewersAnswer.of(services.console.count_viewers(user, dashboard_id))


@router.post("/dashboards:validate", tags=["editing"])
def validate(body: DocumentRequest, user: CurrentUser, services: Services) -> m.ValidationAnswer:
    """Check a document without saving it. For everybody who is logged in: nothing of any dashboard is looked at.

    `problems` are what saving answers with 400 `invalid_document`. `warnings` are what may be saved and is likely not
    meant: a binding that names no datasource, a widget of a type that is not drawn, a pane that overlaps another one or
    leaves the columns, a path that finds nothing. Of each there are 200 at most. Whether datasources resolve is not
    asked.

    A user may ask 60 times in a minute.
    """
    _limit(services, user, "console-validations-user", "validations", VALIDATIONS_PER_USER)
    problems: list[tuple[str, str]] = []
    try:
        check_document(body.document)
    except InvalidDocument as error:
        problems = error.problems[:MOST_WARNINGS]
    return m.ValidationAnswer(
        problems=[m.DocumentProblem(path=path, allowed=allowed) for path, allowed in problems],
        warnings=[m.DocumentWarning(path=path, message=message) for path, message in warnings_of(body.document)],
    )
