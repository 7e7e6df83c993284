/** What admins are told before a change, what is sent to the API, and what operations say. */

import { describe, expect, test } from "vitest";
import { NO_FILTERS, actionText, auditQuery, metadataText } from "../src/console/screens/audit/events.js";
import { ago, movedText, shownSettings, tiles, type Summary } from "../src/console/screens/operations/summary.js";
import { activeText, roleText, type Person } from "../src/console/screens/people/changes.js";
import { brokerLosses, credentialLosses, lossText, type Uses } from "../src/console/screens/profiles/losses.js";
import {
  brokerBody,
  brokerFields,
  credentialBody,
  credentialFields,
  credentialProblem,
  differing,
  stated,
  type Broker,
  type Credential,
} from "../src/console/screens/profiles/profiles.js";

const BASIC: Credential = {
  id: "c",
  revision: 3,
  name: "C",
  type: "basic",
  destinations: ["https://a.example:443"],
  allowPublicUse: true,
  description: "",
  headerName: null,
  secret: { username: "***", password: "***" },
};
const BROKER: Broker = {
  id: "b",
  revision: 1,
  name: "B",
  transport: "external",
  brokerUrl: "mqtts://b.example",
  credentialProfileId: "c",
  topicAllowlist: ["plant/#", "roof/#"],
  allowPublicUse: true,
  description: "",
  tls: {},
};

describe("the secret of a credential profile", () => {
  test("is not sent when it is left empty, so that the stored one stays", () => {
    const fields = credentialFields(BASIC);
    expect(credentialProblem(fields, BASIC)).toBeUndefined();
    expect(credentialBody(fields, BASIC)).not.toHaveProperty("secret");
  });

  test("is sent whole or not at all", () => {
    const half = { ...credentialFields(BASIC), password: "new" };
    expect(credentialProblem(half, BASIC)).toContain("both");
    expect(credentialBody(half, BASIC)).not.toHaveProperty("secret");
    expect(credentialBody({ ...half, username: "u" }, BASIC).secret).toEqual({ username: "u", password: "new" });
  });

  test("is asked for where none that fits is stored", () => {
    expect(credentialProblem({ ...credentialFields(), name: "N" }, undefined)).toContain("secret");
    expect(credentialProblem({ ...credentialFields(BASIC), type: "bearer" }, BASIC)).toContain("secret");
    expect(credentialProblem({ ...credentialFields(), name: "N", type: "none" }, undefined)).toBeUndefined();
  });

  test("goes when the profile needs none any longer, and no other type's is sent", () => {
    expect(credentialBody({ ...credentialFields(BASIC), type: "none" }, BASIC).secret).toEqual({});
    const typed = { ...credentialFields(BASIC), type: "bearer" as const, token: "t", username: "u", password: "p" };
    expect(credentialBody(typed, BASIC).secret).toEqual({ token: "t" });
  });
});

test("an iot-core broker is sent without what only others have", () => {
  const fields = { ...brokerFields(BROKER), transport: "iot-core" as const, ca: "PEM" };
  expect(brokerBody(fields)).toMatchObject({ brokerUrl: null, credentialProfileId: null, tls: {} });
  expect(stated([" a ", "", "a", "b"])).toEqual(["a", "b"]);
});

test("the fields that differ are named", () => {
  const theirs = { ...brokerFields(BROKER), description: "x", topicAllowlist: ["plant/#"] };
  const names = { name: "name", description: "description", topicAllowlist: "topics" };
  expect(differing(brokerFields(BROKER), theirs, names)).toEqual(["description", "topics"]);
});

describe("what a change takes away", () => {
  test("of a credential profile", () => {
    const fields = credentialFields(BASIC);
    expect(credentialLosses(BASIC, fields)).toEqual([]);
    expect(credentialLosses(BASIC, { ...fields, allowPublicUse: false, destinations: [] })).toEqual(["withdrawn", "narrowed"]);
    expect(credentialLosses(BASIC, { ...fields, destinations: [...fields.destinations, "https://b.example"] })).toEqual([]);
  });

  test("of a broker profile", () => {
    const fields = brokerFields(BROKER);
    expect(brokerLosses(BROKER, fields)).toEqual([]);
    expect(brokerLosses(BROKER, { ...fields, brokerUrl: "mqtts://c.example" })).toEqual(["moved"]);
    expect(brokerLosses(BROKER, { ...fields, topicAllowlist: ["plant/#"] })).toEqual(["narrowed"]);
    expect(brokerLosses(BROKER, { ...fields, topicAllowlist: [] })).toEqual([]);
    expect(brokerLosses(BROKER, { ...fields, topicAllowlist: ["#"] })).toEqual([]);
    expect(brokerLosses({ ...BROKER, topicAllowlist: [] }, { ...fields, topicAllowlist: ["a"] })).toEqual(["narrowed"]);
  });

  const uses: Uses = {
    dashboards: [
      { id: "1", title: "One", visibility: "public" },
      { id: "2", title: "Two", visibility: "private" },
    ],
    more: false,
  };

  test("is told with how many dashboards and viewers it ends", () => {
    const text = lossText(["withdrawn"], uses, { all: 9, guests: 4 }) ?? "";
    expect(text).toContain("2 dashboards use it");
    expect(text).toContain("1 is shown without a login");
    expect(text).toContain("4 are watching without a login now");
    expect(lossText(["deleted"], uses, { all: 9, guests: 4 })).toContain("9 are watching them now");
  });

  test("says so when viewers could not be counted, and never that there are none", () => {
    const text = lossText(["withdrawn"], uses, undefined) ?? "";
    expect(text).toContain("could not be checked");
    expect(text).not.toContain("Nobody");
  });

  test("is nothing where nobody uses it, and not less where there are more", () => {
    expect(lossText(["deleted"], { dashboards: [], more: false }, undefined)).toBeUndefined();
    expect(lossText(["withdrawn"], { ...uses, more: true }, undefined)).toContain("At least 1");
    const members: Uses = { dashboards: [{ id: "2", title: "Two", visibility: "private" }], more: false };
    expect(lossText(["withdrawn"], members, undefined)).toContain("members only, who keep it");
  });
});

describe("what a change of an account ends", () => {
  const person: Person = { id: "u", email: "p@x.example", role: "editor", active: true, mustChangePassword: false };

  test("only an admin who is one no longer is signed out", () => {
    expect(roleText(person, "viewer")).toContain("Nothing that they watch ends");
    expect(roleText({ ...person, role: "admin" }, "editor")).toContain("signed out everywhere");
  });

  test("deactivation ends what their dashboards show", () => {
    expect(activeText(person, false, { all: 3, open: 1, more: false })).toContain("1 of them is shown without a login");
    expect(activeText(person, false, { all: 0, open: 0, more: false })).toContain("no dashboard");
    expect(activeText(person, false, { all: 0, open: 0, more: true })).toContain("may own");
    expect(activeText(person, false, undefined)).toContain("could not be checked");
    expect(activeText(person, true, undefined)).toContain("comes back");
  });
});

describe("the audit log", () => {
  test("is asked with ids in place of e-mails, and moments of the browser's time zone in UTC", () => {
    const filters = { ...NO_FILTERS, actor: "A@x.example", target: "raw-id", from: "2026-03-01T12:00" };
    const path = auditQuery(filters, (email) => (email === "A@x.example" ? "u1" : undefined), "123.abc");
    const asked = new URLSearchParams(path.split("?")[1]);
    expect(Object.fromEntries(asked)).toEqual({
      limit: "50",
      actor: "u1",
      target: "raw-id",
      from: new Date("2026-03-01T12:00").toISOString(),
      cursor: "123.abc",
    });
    expect(auditQuery({ ...NO_FILTERS, from: "no date" }, () => undefined)).toBe("/operations/audit?limit=50");
  });

  test("is read in words", () => {
    expect(actionText("dashboard.share_token.rotated")).toBe("dashboard: share token rotated");
    const lines = metadataText(
      { allowPublicUse: true, destinationsAdded: ["a", "b"], userId: "u1", note: null, cut: true },
      (id) => (id === "u1" ? "p@x.example" : undefined),
    );
    expect(lines).toEqual([
      "allow public use: yes",
      "destinations added: a, b",
      "user: p@x.example",
      "note: none",
      "more was not kept",
    ]);
  });
});

describe("operations", () => {
  const now = Date.parse("2026-01-01T12:00:00Z");
  const quiet: Summary = {
    at: "2026-01-01T12:00:00Z",
    version: "1",
    stage: "test",
    remoteApi: false,
    connections: { count: 1284, at: "2026-01-01T11:58:00Z" },
    subscriptions: { count: 0, more: false },
    upstreams: { connected: 2, failing: [], failingCount: 0, idle: 1, more: false },
    relay: [],
    revocations: { newest: 5, applied: 5, waitingSince: null },
    fullRevalidation: { beganAt: null, endedAt: null, running: false, demanded: false },
    limiter: { answers: true },
    queues: [],
    deadLetters: [{ queue: "q", sources: ["q"], messages: 0, oldestAt: null }],
    settings: [
      { variable: "REALTIME_LIMITER_FAILURE_MODE", value: "fail-closed", default: "fail-closed", unit: "" },
      { variable: "B", value: "2", default: "1", unit: "s" },
    ],
    unchecked: [],
  };
  const tile = (summary: Summary, title: string) => tiles(summary, now).find((one) => one.title === title);

  test("zero is zero", () => {
    expect(tiles(quiet, now).every(({ level }) => level === "ok")).toBe(true);
    expect(tile(quiet, "Subscriptions")?.value).toBe("0");
    expect(tile(quiet, "Dead letters")?.value).toBe("0");
  });

  test("what could not be checked has no number", () => {
    const nothing: Summary = {
      ...quiet,
      connections: null,
      subscriptions: null,
      upstreams: null,
      revocations: null,
      fullRevalidation: null,
      deadLetters: [{ queue: "q", sources: ["q"], messages: null, oldestAt: null }],
    };
    const unknown = tiles(nothing, now).filter(({ title }) => title !== "Limiter");
    expect(unknown).toHaveLength(5);
    for (const one of unknown) expect([one.value, one.level, one.text]).toEqual([undefined, "unknown", "could not be checked"]);
    const some = { ...quiet, deadLetters: [...quiet.deadLetters, { queue: "r", sources: ["r"], messages: null, oldestAt: null }] };
    expect(tile(some, "Dead letters")?.text).toContain("could not be checked");
  });

  test("what needs somebody is marked", () => {
    const late = { ...quiet, revocations: { newest: 7, applied: 5, waitingSince: "2026-01-01T11:50:00Z" } };
    expect(tile(late, "Revocations behind")).toMatchObject({ value: "2", level: "critical" });
    const fresh = { ...quiet, revocations: { newest: 7, applied: 5, waitingSince: "2026-01-01T11:59:58Z" } };
    expect(tile(fresh, "Revocations behind")?.level).toBe("ok");
    expect(tile({ ...quiet, limiter: { answers: false } }, "Limiter")?.level).toBe("critical");
    expect(tile({ ...quiet, connections: null }, "Connections")?.text).toContain("next full revalidation");
  });

  test("settings that are not at their default come first, and are found by a part of the name", () => {
    expect(shownSettings(quiet.settings, "").map(({ variable }) => variable)).toEqual(["B", "REALTIME_LIMITER_FAILURE_MODE"]);
    expect(shownSettings(quiet.settings, "limiter")).toHaveLength(1);
  });

  test("ages and what was moved, in words", () => {
    const at = (seconds: number): string => new Date(now - seconds * 1000).toISOString();
    expect([0, 90, 600, 10_800, 259_200].map((seconds) => ago(at(seconds), now))).toEqual([
      "just now",
      "90 s ago",
      "10 min ago",
      "3 h ago",
      "3 days ago",
    ]);
    expect(movedText({ moved: 0, left: 2 })).toContain("not known");
    expect(movedText({ moved: 500, left: 3 })).toContain("3 are left");
    expect(movedText({ moved: 1, left: null })).toContain("could not be checked");
  });
});
