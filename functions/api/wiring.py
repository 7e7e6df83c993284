"""Builds what the API's routes call, from providers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tidegate import tables
from tidegate.adapters.aws.queue_watch import SqsDeadLetters, SqsQueueWatch
from tidegate.adapters.aws.secrets_manager import Secret
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.dynamodb.subscriptions import EXPIRY_SHARDS
from tidegate.adapters.dynamodb.users import DynamoUsers
from tidegate.adapters.json_observer import JsonObserver
from tidegate.adapters.password_argon2 import Argon2Passwords
from tidegate.adapters.tokens_jwt import JwtUserTokens
from tidegate.domain.attempts import AttemptPolicy
from tidegate.domain.budgets import address_part, history_reads, tokens_of_address, tokens_of_viewer
from tidegate.domain.logins import LoginLife
from tidegate.domain.partitions import PARTITIONS
from tidegate.domain.secret_names import SECRETS
from tidegate.ports.limits import KeyHasher
from tidegate.ports.relay import Upstreams
from tidegate.ports.runtime import Clock
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.providers.limits import connect_policy, subscribe_policy
from tidegate.settings import Settings
from tidegate.usecases.control_plane.author_profiles import UsableProfiles
from tidegate.usecases.control_plane.check_topic import CheckTopic
from tidegate.usecases.control_plane.count_viewers import CountViewers
from tidegate.usecases.control_plane.dead_letters import DeadQueue, ManageDeadLetters
from tidegate.usecases.control_plane.health import Check, DeepHealth
from tidegate.usecases.control_plane.internal_api import ConsumeRateLimit, Introspect, ReadRevokedTokens
from tidegate.usecases.control_plane.login import Login, LoginPolicy
from tidegate.usecases.control_plane.logins import Logins
from tidegate.usecases.control_plane.manage_dashboards import ManageDashboards
from tidegate.usecases.control_plane.manage_profiles import ManageProfiles
from tidegate.usecases.control_plane.manage_users import ManageUsers
from tidegate.usecases.control_plane.mint import Mint, MintPolicy
from tidegate.usecases.control_plane.operations import (
    STREAMS,
    Count,
    DemandFullRevalidation,
    OperationsSummary,
    Part,
    RelayPartition,
    counted,
    relay_partition,
    upstreams,
)
from tidegate.usecases.control_plane.own_password import ChangeOwnPassword
from tidegate.usecases.control_plane.preview import Preview, PreviewPolicy
from tidegate.usecases.control_plane.profile_uses import ProfileUses
from tidegate.usecases.control_plane.public_check import PublicCheck
from tidegate.usecases.control_plane.read_audit import ReadAudit
from tidegate.usecases.control_plane.read_history import HistoryPolicy, ReadHistory
from tidegate.usecases.control_plane.share_guesses import ShareGuesses
from tidegate.usecases.gateway.authorizer import LocalAuthorizer
from tidegate.usecases.gateway.would_refuse import WouldRefuse
from tidegate.usecases.limits.rate_limits import RateLimits
from tidegate.usecases.relay.upstream_requests import StoredUpstreamRequests


class ConsoleServices(NamedTuple):
    """What the console asks while somebody edits or shares a dashboard.

    `new_upstreams`: what `preview` connects with. It is imported when the first preview needs it.
    """

    usable_profiles: UsableProfiles
    check_topic: CheckTopic
    preview: Preview
    public_check: PublicCheck
    count_viewers: CountViewers
    new_upstreams: Callable[[], Upstreams]


class ApiServices(NamedTuple):
    """Everything the routes call. `would_refuse` is None where a remote API decides about viewers."""

    settings: Settings
    clock: Clock
    observer: JsonObserver
    keys: KeyHasher
    login: Login
    logins: Logins
    change_own_password: ChangeOwnPassword
    users: ManageUsers
    profiles: ManageProfiles
    profile_uses: ProfileUses
    dashboards: ManageDashboards
    mint: Mint
    share_guesses: ShareGuesses
    introspect: Introspect
    revoked_tokens: ReadRevokedTokens
    consume_rate_limit: ConsumeRateLimit
    rates: RateLimits
    read_audit: ReadAudit
    read_history: ReadHistory
    service_token: Secret
    origin: Secret | None
    deep_health: DeepHealth
    summary: OperationsSummary
    full_revalidation: DemandFullRevalidation
    dead_letters: ManageDeadLetters
    would_refuse: WouldRefuse | None
    console: ConsoleServices


def mint_policy(settings: Settings) -> MintPolicy:
    """The limits of minting. Those that no setting states follow from the settings of the gateway."""
    per_connection, ttl_s = settings.max_subscriptions_per_connection, settings.datasource_session_ttl_seconds
    shared = settings.mint_rate_limit_share_token_per_min
    return MintPolicy(
        ttl_s=ttl_s,
        per_user=settings.mint_rate_limit_user_per_min,
        new_per_address=min(settings.mint_rate_limit_public_ip_per_min, address_part(shared)),
        new_per_dashboard=shared,
        per_viewer=tokens_of_viewer(per_connection, ttl_s),
        following_per_address=tokens_of_address(settings.max_client_connections_per_ip, per_connection, ttl_s),
    )


#: The queues, by the variable that holds the URL.
_QUEUES = {
    "CATCH_UP_QUEUE_URL": "catch-ups",
    "CROWD_QUEUE_URL": "crowds",
    "REVALIDATION_QUEUE_URL": "revalidation",
    "PROFILES_QUEUE_URL": "profiles",
}


def health_checks(container: ControlPlaneProviders) -> list[Check]:
    """Every table, secret and queue of the deployment. Of a table the item is asked for that is never there."""
    db = container.db

    def table(table: tables.Table) -> Check:
        name, key = container.table(table), tables.health_key(table)
        return Check("table", table.name, lambda deadline: db.get(name, key, deadline))

    def queue(variable: str, name: str) -> Check:
        client, url = container.queue(variable)
        asked = {"QueueUrl": url, "AttributeNames": ["QueueArn"]}
        return Check("queue", name, lambda deadline: client.call("GetQueueAttributes", asked, deadline=deadline))

    secrets = [variable for variable in SECRETS if container.env.get(variable)]
    return [
        *(table(each) for each in tables.ALL_TABLES),
        *(Check("secret", SECRETS[variable], container.secret(variable).ask) for variable in secrets),
        *(queue(variable, name) for variable, name in _QUEUES.items()),
    ]


def summary_parts(container: ControlPlaneProviders, dead_letters: ManageDeadLetters) -> list[Part]:
    """What the summary of operations reads, and from where."""
    clock, streams, leases = container.clock, container.streams, container.relay_leases
    subscriptions, limiters = container.subscriptions, container.table(tables.LIMITERS)

    def count(deadline: float) -> Count:
        now = clock.now()
        return counted(lambda shard: subscriptions.count_live(shard, now, deadline), EXPIRY_SHARDS)

    def relay(deadline: float) -> list[RelayPartition]:
        now = clock.now()
        return [relay_partition(each, leases.current(each, deadline), now) for each in range(PARTITIONS)]

    def limiter(deadline: float) -> bool:
        container.db.get(limiters, tables.health_key(tables.LIMITERS), deadline)
        return True

    return [
        Part("subscriptions", count),
        Part("upstreams", lambda deadline: upstreams(streams.all_relayed(STREAMS, deadline))),
        Part("relay", relay),
        Part("revocations", container.revocations.state),
        Part("limiter", limiter),
        Part("dead letters", dead_letters.each),
        *(
            Part(f"queue {name}", SqsQueueWatch(*container.queue(variable)).depth)
            for variable, name in _queues(container).items()
        ),
    ]


#: The dead-letter queues, by the variable that holds the URL: each with its name, and where its messages come from.
_DEAD_QUEUES = {
    "CATCH_UP_DEAD_QUEUE_URL": ("catch-ups", ("CATCH_UP_QUEUE_URL",)),
    "CROWD_DEAD_QUEUE_URL": ("crowds", ("CROWD_QUEUE_URL",)),
    "REVALIDATION_DEAD_QUEUE_URL": ("revalidation", ("REVALIDATION_QUEUE_URL", "PROFILES_QUEUE_URL")),
    "DEVICE_MESSAGES_DEAD_QUEUE_URL": ("device-messages", ("DEVICE_MESSAGES_QUEUE_URL",)),
}


def _queues(container: ControlPlaneProviders) -> dict[str, str]:
    """The queues of the deployment. That of device messages is there only where topics are brought in batches."""
    batched = {"DEVICE_MESSAGES_QUEUE_URL": "device-messages"}
    return _QUEUES | {variable: name for variable, name in batched.items() if container.env.get(variable)}


def dead_queues(container: ControlPlaneProviders) -> dict[str, DeadQueue]:
    """The dead-letter queues of the deployment, by name."""
    there, made = _queues(container), dict[str, DeadQueue]()
    for variable, (name, sources) in _DEAD_QUEUES.items():
        if all(source in there for source in sources):
            urls = tuple(container.variable(source) for source in sources)
            queue = SqsDeadLetters(*container.queue(variable), urls)
            made[name] = DeadQueue([there[source] for source in sources], queue)
    return made


def history_policy(settings: Settings) -> HistoryPolicy:
    """The limits of reading a history. They follow from the settings of the gateway."""
    per_viewer = history_reads(settings.max_subscriptions_per_connection)
    return HistoryPolicy(
        per_viewer=per_viewer,
        per_address=per_viewer * settings.max_client_connections_per_ip,
        enabled=settings.realtime_enabled,
    )


def api_services(env: Mapping[str, str] | None = None) -> ApiServices:
    container = ControlPlaneProviders(env)
    settings, clock, ids = container.settings, container.clock, container.ids
    db = container.db
    revocations, dashboards = container.revocations, container.dashboards
    users = DynamoUsers(
        db, revocations, table=container.table(tables.USERS), access_table=container.table(tables.ACCESS)
    )
    audit = DynamoAudit(db, container.table(tables.AUDIT), ids, container.observer)
    rates = container.rates(settings.security_limiter_failure_mode)
    attempts = container.attempts(rates)
    share_guesses = ShareGuesses(attempts=attempts)
    passwords = Argon2Passwords()
    user_tokens = JwtUserTokens(container.secret("JWT_SECRET_ARN"), settings.session_token_issuer)
    cipher = container.cipher
    manage_dashboards = ManageDashboards(
        dashboards=dashboards,
        users=users,
        profiles=container.profiles,
        resolve=container.resolve,
        audit=audit,
        clock=clock,
        ids=ids,
    )
    life = LoginLife(settings.login_ttl_seconds, settings.login_max_seconds)
    guesses_here = AttemptPolicy(
        settings.login_max_attempts, settings.login_window_seconds, settings.login_lock_seconds
    )
    login = Login(
        policy=LoginPolicy(
            here=guesses_here,
            account=AttemptPolicy(settings.login_account_max_attempts, settings.login_account_window_seconds),
            known_s=settings.login_known_address_seconds,
            life=life,
        ),
        users=users,
        passwords=passwords,
        tokens=user_tokens,
        rates=rates,
        attempts=attempts,
        audit=audit,
        clock=clock,
        ids=ids,
    )
    mint = Mint(
        policy=mint_policy(settings),
        dashboards=dashboards,
        access=container.access,
        profiles=container.profiles,
        tokens=container.session_tokens,
        rates=rates,
        audit=audit,
        clock=clock,
        ids=ids,
    )
    authorizer = LocalAuthorizer(access=container.access, profiles=container.profiles, policy=container.stream_policy)
    dead_letters = ManageDeadLetters(
        queues=dead_queues(container), audit=audit, clock=clock, observer=container.observer
    )
    would_refuse = None
    if not settings.api_base_url:
        would_refuse = WouldRefuse(
            connect=connect_policy(settings),
            subscribe=subscribe_policy(settings),
            limits=container.look_at_limits,
            keys=container.keys,
            tokens=container.session_tokens,
            authorizer=authorizer,
            clock=clock,
        )
    return ApiServices(
        settings=settings,
        clock=clock,
        observer=container.observer,
        keys=container.keys,
        login=login,
        logins=Logins(users=users, tokens=user_tokens, life=life, audit=audit, clock=clock),
        change_own_password=ChangeOwnPassword(
            policy=guesses_here,
            life=life,
            users=users,
            passwords=passwords,
            attempts=attempts,
            audit=audit,
            clock=clock,
        ),
        users=ManageUsers(users=users, passwords=passwords, audit=audit, clock=clock, ids=ids),
        profiles=ManageProfiles(
            profiles=container.profiles,
            follow=container.follow_profiles,
            requests=container.follow_requests,
            cipher=cipher,
            egress=container.egress_policy,
            audit=audit,
            clock=clock,
            ids=ids,
        ),
        profile_uses=ProfileUses(profiles=container.profiles, dashboards=dashboards),
        dashboards=manage_dashboards,
        mint=mint,
        share_guesses=share_guesses,
        introspect=Introspect(
            tokens=container.session_tokens,
            authorizer=authorizer,
            profiles=container.profiles,
            cipher=cipher,
            clock=clock,
        ),
        revoked_tokens=ReadRevokedTokens(feed=revocations, max_batch=settings.revoked_tokens_max_batch, clock=clock),
        consume_rate_limit=ConsumeRateLimit(rates=rates, keys=container.keys),
        rates=rates,
        read_audit=ReadAudit(audit=audit, clock=clock),
        read_history=ReadHistory(
            policy=history_policy(settings),
            tokens=container.session_tokens,
            authorizer=authorizer,
            history=container.history,
            rates=rates,
            clock=clock,
        ),
        service_token=container.secret("GATEWAY_SERVICE_TOKEN_ARN"),
        origin=container.origin,
        deep_health=DeepHealth(checks=health_checks(container), clock=clock, observer=container.observer),
        summary=OperationsSummary(
            parts=summary_parts(container, dead_letters), clock=clock, observer=container.observer
        ),
        full_revalidation=DemandFullRevalidation(
            runs=revocations, tasks=container.revalidations, rates=rates, audit=audit, clock=clock
        ),
        dead_letters=dead_letters,
        would_refuse=would_refuse,
        console=_console(container, manage_dashboards, authorizer, audit),
    )


def _console(
    container: ControlPlaneProviders, dashboards: ManageDashboards, authorizer: LocalAuthorizer, audit: DynamoAudit
) -> ConsoleServices:
    settings, profiles, streams = container.settings, container.profiles, container.stream_policy
    return ConsoleServices(
        usable_profiles=UsableProfiles(editable=dashboards.editable, profiles=profiles),
        check_topic=CheckTopic(editable=dashboards.editable, profiles=profiles, policy=streams),
        preview=Preview(
            policy=PreviewPolicy(settings.realtime_enabled, streams, settings.max_message_bytes),
            editable=dashboards.editable,
            profiles=profiles,
            resolve=container.resolve,
            limits=container.look_at_limits,
            quota=container.quota,
            requests=StoredUpstreamRequests(profiles=profiles, cipher=container.cipher),
            connect=container.new_upstreams,
            streams=container.streams,
            last_values=container.last_values,
            audit=audit,
            clock=container.clock,
            ids=container.ids,
        ),
        public_check=PublicCheck(
            enabled=settings.realtime_enabled,
            shareable=dashboards.shareable,
            profiles=profiles,
            resolve=container.resolve,
            authorizer=authorizer,
            policy=streams,
            clock=container.clock,
        ),
        count_viewers=CountViewers(
            editable=dashboards.editable, subscriptions=container.subscriptions, clock=container.clock
        ),
        new_upstreams=container.new_upstreams,
    )
