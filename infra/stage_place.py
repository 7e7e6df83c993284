"""Where a stage is and what belongs to it: account, region, domain, tags and the like. All of it is optional."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from infra.stage_file import StageError

#: Keys of a stage file that this module reads, and their kinds.
KEYS = {
    "account": str,
    "region": str,
    "domain": str,
    "certificate": str,
    "hosted_zone": str,
    "web_acl": str,
    "alarm_email": str,
    "quota_share": int,
    "tags": dict,
    "relay_vpc": dict,
    "relay": dict,
}
#: Texts: what one looks like, and how that is told.
_TEXTS = {
    "account": (r"[0-9]{12}", "the 12 digits of an account"),
    "region": (r"[a-z]{2}(-[a-z]+)+-[0-9]", "a region such as eu-central-1"),
    "domain": (
        r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])",
        "a host name in small letters such as live.example.com, without https:// and without a dot at the end",
    ),
    "certificate": (
        r"arn:aws[a-z-]*:acm:us-east-1:[0-9]{12}:certificate/[A-Za-z0-9-]{1,64}",
        "the ARN of an ACM certificate of us-east-1, the only region whose certificates CloudFront takes",
    ),
    "hosted_zone": (r"[A-Z0-9]{1,32}", "the id of a hosted zone of Route 53, such as Z0123456789ABCDEFGHIJ"),
    "web_acl": (
        r"arn:aws[a-z-]*:wafv2:us-east-1:[0-9]{12}:global/webacl/[A-Za-z0-9_-]{1,128}/[a-f0-9-]{36}",
        "the ARN of a web ACL with the scope CLOUDFRONT, arn:aws:wafv2:us-east-1:<account>:global/webacl/<name>/<id>",
    ),
    "alarm_email": (r"[^@\s,;<>\"]{1,64}@[A-Za-z0-9.-]{1,189}\.[A-Za-z]{2,63}", "one e-mail address"),
}
#: The parts of `relay_vpc`.
_VPC = {"vpc": r"vpc-[0-9a-f]{8,17}", "subnets": r"subnet-[0-9a-f]{8,17}", "security_groups": r"sg-[0-9a-f]{8,17}"}
#: The parts of `relay`, the most tasks, and the memory that Fargate has for so many CPU units, MB. A second task stands
#: by; a third would only be paid. A process uses one core at most.
_RELAY = ("service", "tasks", "cpu", "memory_mb")
MOST_TASKS = 2
TASK_MEMORY_MB = {
    256: (512, 1024, 2048),
    512: (1024, 2048, 3072, 4096),
    1024: (2048, 3072, 4096, 5120, 6144, 7168, 8192),
}
#: CloudFormation takes 50 tags for a stack. `aws:` is AWS's own, `tidegate:` ours.
_MOST_TAGS = 40
_TAG_KEY, _TAG_VALUE = re.compile(r"[\w .:/=+@-]{1,128}"), re.compile(r"[\w .:/=+@-]{0,256}")
_OWN_TAGS = ("aws:", "tidegate:")
#: The tag that names the stage on everything that has tags.
STAGE_TAG = "tidegate:stage"
#: What only makes sense where CloudFront is in front.
_OF_EDGE = ("domain", "certificate", "hosted_zone", "web_acl")


@dataclass(frozen=True, slots=True)
class RelayVpc:
    """The network of the relay function. Its subnets need a way out, which a NAT gateway gives, or end points."""

    vpc: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RelayTasks:
    """The relay as a service: how many tasks, and the CPU units (1,024 are a core) and the MB of each."""

    tasks: int = 1
    cpu: int = 256
    memory_mb: int = 512


@dataclass(frozen=True, slots=True)
class Place:
    """What a stage file says of where the stage is. `None` for what it does not say.

    Attributes:
        account: the only account that the stage is deployed to.
        region: the only region. None for that of the credentials.
        domain: the stage's own name. None for CloudFront's.
        certificate: the ARN of the certificate of that name.
        hosted_zone: the id of the zone in which the name gets its records.
        web_acl: the ARN of the web ACL in front of CloudFront.
        alarm_email: who is told of alarms by e-mail, through a topic that the stage makes.
        quota_share: percent of the account's quotas that the stage may use, 1 to 100.
        tags: further tags of everything that has tags.
        relay_vpc: the network of the relay. None for Lambda's own, or one that the stage makes for a service.
        relay_tasks: the tasks of the relay's service. None where the relay is a function.
    """

    account: str | None = None
    region: str | None = None
    domain: str | None = None
    certificate: str | None = None
    hosted_zone: str | None = None
    web_acl: str | None = None
    alarm_email: str | None = None
    quota_share: int = 100
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    relay_vpc: RelayVpc | None = None
    relay_tasks: RelayTasks | None = None

    def part(self, quota: int) -> int:
        """This stage's part of a quota of the account, at least 1."""
        return max(1, quota * self.quota_share // 100)


def place_of(raw: Mapping[str, Any], file: str) -> Place:
    """Read it from a stage file whose kinds of values were checked. Raises `StageError`."""
    texts: dict[str, Any] = {}
    for key, (pattern, allowed) in _TEXTS.items():
        if key in raw:
            if not re.fullmatch(pattern, raw[key]):
                raise _wrong(file, key, raw[key], allowed)
            texts[key] = raw[key]
    _together(raw, file)
    share = raw.get("quota_share", 100)
    if isinstance(share, bool) or not 1 <= share <= 100:
        raise _wrong(file, "quota_share", share, "a whole number of percent from 1 to 100")
    return Place(
        **texts,
        quota_share=share,
        tags=_tags(raw.get("tags", {}), file),
        relay_vpc=_vpc(raw.get("relay_vpc"), file),
        relay_tasks=_relay_tasks(raw.get("relay"), file),
    )


def _together(raw: Mapping[str, Any], file: str) -> None:
    if raw["architecture"] == "host" and (given := [key for key in KEYS if key in raw]):
        raise StageError(f"{file}: {given[0]!r}: allowed: only in a stage of a cloud account, architecture arm64")
    if ("domain" in raw) != ("certificate" in raw):
        raise StageError(f"{file}: 'domain' and 'certificate': allowed: both, or neither")
    if "hosted_zone" in raw and "domain" not in raw:
        raise StageError(f"{file}: 'hosted_zone': allowed: only with 'domain', which gets its records there")
    if not raw["edge"] and (given := [key for key in _OF_EDGE if key in raw]):
        raise StageError(f"{file}: {given[0]!r}: allowed: only with 'edge': true, it is CloudFront's")
    if "alarm_email" in raw and "alarm_topic_arn" in raw:
        raise StageError(f"{file}: 'alarm_email' and 'alarm_topic_arn': allowed: one of them; subscribe to your topic")


def _tags(given: Mapping[str, Any], file: str) -> Mapping[str, str]:
    if len(given) > _MOST_TAGS:
        raise _wrong(file, "tags", f"{len(given)} tags", f"at most {_MOST_TAGS}")
    for key, value in given.items():
        if not _TAG_KEY.fullmatch(key) or key.lower().startswith(_OWN_TAGS):
            allowed = "up to 128 letters, digits and _.:/=+@- or spaces, not beginning with aws: or tidegate:"
            raise _wrong(file, "tags", key, f"as a name {allowed}")
        if not isinstance(value, str) or not _TAG_VALUE.fullmatch(value):
            raise _wrong(file, f"tags.{key}", value, "a text of up to 256 letters, digits and _.:/=+@- or spaces")
    return MappingProxyType(dict(given))


def _vpc(given: Mapping[str, Any] | None, file: str) -> RelayVpc | None:
    if given is None:
        return None
    if given.keys() != _VPC.keys():
        raise _wrong(file, "relay_vpc", sorted(given), f"an object of {', '.join(_VPC)}")
    vpc, subnets, groups = (given[key] for key in _VPC)
    if not isinstance(vpc, str) or not re.fullmatch(_VPC["vpc"], vpc):
        raise _wrong(file, "relay_vpc.vpc", vpc, "the id of a VPC, vpc-…")
    for key, ids in (("subnets", subnets), ("security_groups", groups)):
        if not isinstance(ids, list) or not 1 <= len(ids) <= 16 or len({str(each) for each in ids}) != len(ids):
            raise _wrong(file, f"relay_vpc.{key}", ids, "a list of 1 to 16 different ids")
        for each in ids:
            if not isinstance(each, str) or not re.fullmatch(_VPC[key], each):
                raise _wrong(
                    file, f"relay_vpc.{key}", each, f"ids such as {_VPC[key].partition('-')[0]}-0123456789abcdef0"
                )
    return RelayVpc(vpc, tuple(subnets), tuple(groups))


def _relay_tasks(given: Mapping[str, Any] | None, file: str) -> RelayTasks | None:
    if given is None:
        return None
    if unknown := given.keys() - set(_RELAY):
        raise _wrong(file, "relay", sorted(unknown), f"an object of {', '.join(_RELAY)}")
    if not isinstance(given.get("service"), bool):
        raise _wrong(file, "relay.service", given.get("service"), "true or false, and it must be there")
    sizes = {key: given[key] for key in _RELAY[1:] if key in given}
    for key, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(file, f"relay.{key}", value, "a whole number")
    made = RelayTasks(**sizes)
    if not 1 <= made.tasks <= MOST_TASKS:
        raise _wrong(file, "relay.tasks", made.tasks, f"1 to {MOST_TASKS}; a second one stands by")
    if made.cpu not in TASK_MEMORY_MB:
        raise _wrong(file, "relay.cpu", made.cpu, f"one of {', '.join(map(str, TASK_MEMORY_MB))}; 1024 are a core")
    if made.memory_mb not in (allowed := TASK_MEMORY_MB[made.cpu]):
        sizes_told = ", ".join(map(str, allowed))
        raise _wrong(file, "relay.memory_mb", made.memory_mb, f"with {made.cpu} CPU units one of {sizes_told}")
    return made if given["service"] else None


def _wrong(file: str, key: str, found: object, allowed: str) -> StageError:
    return StageError(f"{file}: {key!r} is {str(found)[:60]!r}; allowed: {allowed}")
