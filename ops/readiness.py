"""Whether a stage can be deployed to an account, decided from the account's answers. Nobody is asked here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from infra.concurrency import KEPT_UNRESERVED, in_background
from infra.stage import Stage
from ops.account_answers import BOOTSTRAP_PARAMETER, no_stack, role_of
from ops.answers import Answer
from ops.protection import FAILED_CREATIONS

#: The bootstrap stack that the CDK asks for: `requiresBootstrapStackVersion` in cdk.out/manifest.json.
LEAST_BOOTSTRAP = 6
#: Functions at once. API, gateway, bridge, relay and revalidation each need some, and crowds take up to 16.
ENOUGH_CONCURRENCY = 50
#: Service Quotas' names of what may be asked for. A number below a quota's default cannot be asked for.
CONCURRENCY_QUOTA, REQUESTS_QUOTA = ("lambda", "L-B99A9384"), ("apigateway", "L-8A5B8E43")
_DEFAULT_CONCURRENCY = 1000
_DEFAULT_REQUESTS = 10_000
#: What a deployment waits for, or cannot go on from.
_REPAIRS = {
    "UPDATE_ROLLBACK_FAILED": "run: aws cloudformation continue-update-rollback --stack-name {stack}",
    "DELETE_FAILED": "run `make destroy STAGE={stage}` again; it names what cannot be deleted",
    "CREATE_FAILED": "run `make destroy STAGE={stage}`, then deploy again",
    "UPDATE_FAILED": "run: aws cloudformation rollback-stack --stack-name {stack}",
}
_LOG_IN = "set AWS_PROFILE, or log in with `aws login` or `aws sso login`"


class State(StrEnum):
    """`WARN` is for what works, and is worth a look. It fails no command."""

    OK = "ok"
    WARN = "warn"
    FAILED = "failed"
    UNKNOWN = "could not check"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at.

    Attributes:
        check: its name.
        found: what was found.
        do: what to do about it; empty when nothing is.
        stops: whether a deployment cannot succeed with it.
    """

    check: str
    state: State
    found: str
    do: str = ""
    stops: bool = False


def lines(stage: Stage, answers: Mapping[str, Answer], region: str | None) -> list[Line]:
    """All lines, in the order in which things are needed. `region`: that of the credentials."""
    who = caller_line(stage, answers["caller"])
    where = region_line(stage, region)
    if State.FAILED in (who.state, where.state) or who.state is State.UNKNOWN:
        return [who, where]
    assert region is not None
    return [
        who,
        where,
        _bootstrap(stage, answers["bootstrap"]),
        _stack(stage, answers["stack"], answers.get("resources")),
        concurrency_line(stage, answers["concurrency"]),
        places_line(stage, answers["concurrency"]),
        _requests(stage, answers["api_gateway"]),
        _logging_role(stage, answers),
        *_edge(stage, answers),
        *_subnets(stage, answers),
    ]


def exit_code(found: list[Line]) -> int:
    """0 when all is well, 1 when something failed, 3 when nothing failed but something could not be checked.

    A warning is neither. 2 is that of a wrong option.
    """
    states = {line.state for line in found}
    return 1 if State.FAILED in states else 3 if State.UNKNOWN in states else 0


def others_logging_role(answers: Mapping[str, Answer]) -> bool:
    """Whether the account's logging role of API Gateway is to be left alone, because it is not this stage's.

    What cannot be known is left alone too: a role that is replaced by mistake takes logs away from others.
    """
    if _owns_role(answers.get("resources")):
        return False
    if not answers["api_gateway"].there:
        return True
    if role_of(answers["api_gateway"]) is None:
        return False
    return answers["role"].code != "NoSuchEntity"  # a role that is gone is of no use to anybody


def _owns_role(resources: Answer | None) -> bool:
    given = resources.value if resources is not None and resources.there else []
    return any(each["ResourceType"] == "AWS::ApiGateway::Account" for each in given)


def unknown(check: str, answer: Answer) -> Line:
    """The line of what the account did not answer."""
    do = f"allow {answer.denied}, or look yourself" if answer.denied else "try again, or look yourself"
    return Line(check, State.UNKNOWN, answer.unknown(), do)


def caller_line(stage: Stage, answer: Answer) -> Line:
    """Whose the credentials are."""
    if answer.denied or answer.unreached:
        return unknown("credentials", answer)
    if answer.code == "NoCredentialsError":
        return Line("credentials", State.FAILED, "there are none", _LOG_IN, stops=True)
    if not answer.there:
        return Line("credentials", State.FAILED, f"AWS does not take them ({answer.unknown()})", _LOG_IN, stops=True)
    account, arn = answer.value["Account"], answer.value["Arn"]
    if stage.place.account not in (None, account):
        found = f"they are of account {account}, and the stage file says {stage.place.account}"
        return Line("credentials", State.FAILED, found, "use those of the stage's account", stops=True)
    return Line("credentials", State.OK, f"account {account}, as {arn}")


def region_line(stage: Stage, region: str | None) -> Line:
    """`region`: that of the credentials."""
    if region is None:
        do = f'set AWS_REGION, or "region" in infra/stages/{stage.name}.json'
        return Line("region", State.FAILED, "none is set", do, stops=True)
    return Line("region", State.OK, region)


def _bootstrap(stage: Stage, answer: Answer) -> Line:
    do = f"run `make bootstrap STAGE={stage.name}`"
    if answer.code == "ParameterNotFound":
        return Line("bootstrap", State.FAILED, f"there is no {BOOTSTRAP_PARAMETER} in this region", do, stops=True)
    if not answer.there:
        return unknown("bootstrap", answer)
    if not str(answer.value).isdecimal() or int(answer.value) < LEAST_BOOTSTRAP:
        found = f"version {answer.value}; the CDK needs {LEAST_BOOTSTRAP}"
        return Line("bootstrap", State.FAILED, found, do, stops=True)
    return Line("bootstrap", State.OK, f"version {answer.value}")


def _stack(stage: Stage, answer: Answer, resources: Answer | None) -> Line:
    stack = f"Tidegate-{stage.name}"
    if no_stack(answer):
        return Line("stack", State.OK, f"{stack} is not there yet")
    if not answer.there:
        return unknown("stack", answer)
    status = answer.value["StackStatus"]
    if status == "REVIEW_IN_PROGRESS":
        return Line("stack", State.OK, "only looked at, never created")
    if status in FAILED_CREATIONS:
        left = _not_deleted(resources)
        found = f"{status}: its first creation failed" + (f", and these are left: {left}" if left else "")
        return Line("stack", State.OK, f"{found}. `make deploy` deletes it and creates it again")
    if status.endswith("_IN_PROGRESS"):
        return Line("stack", State.FAILED, status, "wait until it is over", stops=True)
    if status in _REPAIRS:
        do = _REPAIRS[status].format(stack=stack, stage=stage.name)
        return Line("stack", State.FAILED, status, do, stops=True)
    return Line("stack", State.OK, status)


def _not_deleted(resources: Answer | None) -> str:
    given = resources.value if resources is not None and resources.there else []
    return ", ".join(
        str(each.get("PhysicalResourceId") or each["LogicalResourceId"])
        for each in given
        if each["ResourceStatus"] == "DELETE_FAILED"
    )


def concurrency_line(stage: Stage, answer: Answer) -> Line:
    """Whether the account runs enough functions at once. `answer`: its quota."""
    check = "concurrency of Lambda"
    if not answer.there:
        return unknown(check, answer)
    limit, part = int(answer.value), stage.place.part(int(answer.value))
    found = f"{limit} functions at once" + (f", {part} of them this stage's" if part != limit else "")
    if part >= ENOUGH_CONCURRENCY:
        return Line(check, State.OK, found)
    return Line(
        check,
        State.FAILED,
        f"{found}. Below {ENOUGH_CONCURRENCY}, viewers who come at once are refused while values of a large dashboard "
        "are sent, and values and ended rights are told late",
        _ask_for(CONCURRENCY_QUOTA, _DEFAULT_CONCURRENCY) + ". Until then a trial with few viewers works",
    )


def places_line(stage: Stage, answer: Answer) -> Line:
    """Whether the stage file says what the account has. `answer`: its quota of concurrent executions.

    The bounds of all queues follow from what the file says (`infra.concurrency`).
    """
    check = "lambda_concurrency of the stage file"
    if not answer.there:
        return unknown(check, answer)
    limit, stated = int(answer.value), stage.lambda_concurrency
    do = f'write "lambda_concurrency": {limit} into infra/stages/{stage.name}.json'
    if stage.connect_concurrency is not None and stage.connect_concurrency > limit - KEPT_UNRESERVED:
        most = limit - KEPT_UNRESERVED
        mend = f"connect_concurrency {most} at most" if most >= 1 else "no connect_concurrency"
        found = f"{stage.connect_concurrency} places are to be kept for handshakes, of {limit} that the account has"
        return Line(check, State.FAILED, found, f"{do}, and {mend}", stops=True)
    if stated == limit:
        return Line(check, State.OK, f"{stated}, as the account has")
    found = f"the file says {stated}, and the account has {limit}"
    if stated > limit:
        taken = in_background(stated)
        if taken * 2 <= limit:
            return Line(check, State.WARN, found, do)
        found += f". What works in the background may take {taken} at once, so that handshakes are refused"
        return Line(check, State.FAILED, found, do)
    if in_background(stated) < in_background(limit):
        return Line(check, State.WARN, f"{found}. Queues are worked off more slowly than they could be", do)
    return Line(check, State.OK, found)


def _requests(stage: Stage, answer: Answer) -> Line:
    check = "requests of API Gateway"
    if not answer.there:
        return unknown(check, answer)
    limit = (answer.value.get("throttleSettings") or {}).get("rateLimit")
    sends = stage.settings.max_sends_per_second
    if limit is None:
        return Line(check, State.UNKNOWN, "the account does not tell its quota", f"look up {REQUESTS_QUOTA[1]}")
    part = stage.place.part(int(limit))
    found = f"{int(limit)} a second" + (f", {part} of them this stage's" if part != int(limit) else "")
    if sends == 0:
        return Line(check, State.OK, f"{found}; REALTIME_MAX_SENDS_PER_SECOND=0 sends without a limit")
    if sends * 2 > part:
        return Line(
            check,
            State.FAILED,
            f"{found}. Messages to viewers may be {sends} a second, which leaves less than half for those who come and "
            "for the API",
            f"set REALTIME_MAX_SENDS_PER_SECOND to {max(1, part // 2)}, or "
            + _ask_for(REQUESTS_QUOTA, max(_DEFAULT_REQUESTS, sends * 2)),
        )
    return Line(check, State.OK, f"{found}, at most {sends} for messages to viewers")


def _ask_for(quota: tuple[str, str], value: int) -> str:
    service, code = quota
    return (
        f"ask for more: aws service-quotas request-service-quota-increase --service-code {service} "
        f"--quota-code {code} --desired-value {value}"
    )


def _logging_role(stage: Stage, answers: Mapping[str, Answer]) -> Line:
    check = "logging role of API Gateway"
    if stage.disposable:
        return Line(check, State.OK, "not needed, this stage writes no access logs")
    answer = answers["api_gateway"]
    role = role_of(answer)
    if _owns_role(answers.get("resources")):
        found = "this stage has set it" + ("" if role else ", and it is gone" if answer.there else "")
        return Line(check, State.OK, found)
    if not answer.there:
        found = f"{answer.unknown()}. Whatever is there is left alone; without any, the deployment fails"
        return Line(check, State.UNKNOWN, found, unknown(check, answer).do)
    if role is None:
        return Line(check, State.OK, "the account has none in this region; this stage sets it")
    kept = answers["role"]
    if kept.code == "NoSuchEntity":
        return Line(check, State.OK, f"{role} is set, but there is no such role; this stage sets its own")
    if not kept.there:
        told = f"{role} is set and left alone; whether that role is still there: {kept.unknown()}"
        return Line(check, State.UNKNOWN, told, unknown(check, kept).do)
    return Line(check, State.OK, f"{role} is somebody else's; it is used and left alone")


def _edge(stage: Stage, answers: Mapping[str, Answer]) -> Iterator[Line]:
    if not stage.edge:
        return
    yield _cloudfront(stage, answers["distributions"], answers.get("resources"))
    if stage.place.domain is None:
        yield Line("domain", State.OK, "none in the stage file; the address is CloudFront's own")
        return
    yield _certificate(stage.place.domain, answers["certificate"])
    if stage.place.hosted_zone is not None:
        yield _zone(stage.place.domain, answers["hosted_zone"])
    else:
        do = f"after the deployment, let {stage.place.domain} be a CNAME or an alias of the distribution"
        yield Line("hosted zone", State.OK, "none in the stage file; the records are yours to make", do)


def _cloudfront(stage: Stage, answer: Answer, resources: Answer | None) -> Line:
    if "must be verified" in answer.message:
        do = "open a case with AWS support (account and billing), and quote that message"
        return Line("CloudFront", State.FAILED, answer.message, do, stops=True)
    if not answer.there:
        return unknown("CloudFront", answer)
    given = resources.value if resources is not None and resources.there else []
    own = {each.get("PhysicalResourceId") for each in given if each["ResourceType"] == "AWS::CloudFront::Distribution"}
    others = [each["Id"] for each in answer.value if stage.place.domain in each["Aliases"] and each["Id"] not in own]
    if stage.place.domain is not None and others:
        found = f"{stage.place.domain} is a name of distribution {others[0]} already"
        return Line("CloudFront", State.FAILED, found, "take the name away there, or choose another", stops=True)
    if own & {each["Id"] for each in answer.value}:
        return Line("CloudFront", State.OK, "this stage has its distribution")
    return Line(
        "CloudFront",
        State.UNKNOWN,
        f"the account has {len(answer.value)} distributions, and CloudFront answers. Whether it lets the account make "
        "another shows only when it is made: it refuses new accounts with `Your account must be verified`",
        "deploy; when it is refused, all is rolled back. Then open a case with AWS support and quote the message",
    )


def covers(name: str, domain: str) -> bool:
    """Whether a name of a certificate covers a domain. `*` is exactly one label, the first."""
    name, domain = name.lower().rstrip("."), domain.lower()
    if name.startswith("*."):
        label, _, rest = domain.partition(".")
        return bool(label) and rest == name[2:]
    return name == domain


def _certificate(domain: str, answer: Answer) -> Line:
    if answer.code == "ResourceNotFoundException":
        do = "look at its ARN in the stage file; it has to be of this account and of us-east-1"
        return Line("certificate", State.FAILED, "there is no such certificate", do, stops=True)
    if not answer.there:
        return unknown("certificate", answer)
    given: Mapping[str, Any] = answer.value
    names = list(dict.fromkeys([given["DomainName"], *given.get("SubjectAlternativeNames", [])]))
    if given["Status"] != "ISSUED":
        do = "make the records that ACM asks for" if given["Status"] == "PENDING_VALIDATION" else "ask for a new one"
        return Line("certificate", State.FAILED, f"it is {given['Status']}, not ISSUED", do, stops=True)
    if not any(covers(name, domain) for name in names):
        found = f"it is for {', '.join(names)}, not for {domain}"
        return Line("certificate", State.FAILED, found, "ask ACM for one with that name, in us-east-1", stops=True)
    return Line("certificate", State.OK, f"ISSUED, for {', '.join(names)}")


def _zone(domain: str, answer: Answer) -> Line:
    if answer.code in ("NoSuchHostedZone", "InvalidInput"):
        return Line(
            "hosted zone", State.FAILED, "there is no such zone", "look at its id in the stage file", stops=True
        )
    if not answer.there:
        return unknown("hosted zone", answer)
    name = answer.value["Name"].rstrip(".")
    if domain != name and not domain.endswith(f".{name}"):
        found = f"it is the zone of {name}, in which {domain} cannot be"
        return Line("hosted zone", State.FAILED, found, "give the id of the domain's own zone", stops=True)
    if answer.value.get("Config", {}).get("PrivateZone"):
        return Line("hosted zone", State.FAILED, "it is private", "give the id of the public one", stops=True)
    return Line("hosted zone", State.OK, f"the zone of {name}; A and AAAA are made for {domain}")


def _subnets(stage: Stage, answers: Mapping[str, Answer]) -> Iterator[Line]:
    if stage.place.relay_vpc is None:
        return
    check, vpc, answer = "network of the relay", stage.place.relay_vpc.vpc, answers["subnets"]
    if answer.code.startswith("InvalidSubnet"):
        yield Line(check, State.FAILED, answer.message, "look at `relay_vpc` in the stage file", stops=True)
    elif not answer.there:
        yield unknown(check, answer)
    elif wrong := sorted(each["SubnetId"] for each in answer.value if each["VpcId"] != vpc):
        found = f"{', '.join(wrong)}: not in {vpc}"
        yield Line(check, State.FAILED, found, "give subnets of one VPC, the one you name", stops=True)
    else:
        found = f"{len(answer.value)} subnets of {vpc}. Whether they have a way out to the upstreams was not looked at"
        yield Line(check, State.OK, found)
