/** Events of the audit log as people read them, and questions as the API takes them. */

export interface AuditEvent {
  action: string;
  actorId: string | null;
  targetType: string;
  targetId: string;
  at: string;
  count: number;
  firstAt: string;
  lastAt: string;
  metadata: Record<string, unknown>;
}

export interface Filters {
  action: string;
  actor: string;
  target: string;
  /** As `datetime-local` has them: in the time zone of the browser. */
  from: string;
  to: string;
}

export const NO_FILTERS: Filters = { action: "", actor: "", target: "", from: "", to: "" };

/** Actions that there are, for the field's suggestions. The log may have others. */
export const ACTIONS: readonly string[] = [
  "auth.login.blocked",
  "auth.login.locked",
  "auth.logout",
  "auth.logout_everywhere",
  "broker_profile.created",
  "broker_profile.deleted",
  "broker_profile.updated",
  "credential_profile.created",
  "credential_profile.deleted",
  "credential_profile.updated",
  "dashboard.acl.revoked",
  "dashboard.acl.upserted",
  "dashboard.created",
  "dashboard.deleted",
  "dashboard.owner.updated",
  "dashboard.share_token.rotated",
  "dashboard.updated",
  "dashboard.visibility.updated",
  "datasource.session_token.limiter_unavailable",
  "datasource.session_token.rate_limited",
  "operations.dead_letters_redriven",
  "operations.full_revalidation",
  "password_reset.admin_issued",
  "password_reset.completed",
  "user.admin_created",
  "user.admin_updated",
];

/** The question for the API. `idOf` finds the id of an e-mail; what it does not know is sent as it is. */
export function auditQuery(filters: Filters, idOf: (email: string) => string | undefined, cursor?: string): string {
  const asked = new URLSearchParams({ limit: "50" });
  const put = (name: string, value: string | undefined): void => {
    if (value) asked.set(name, value);
  };
  put("action", filters.action.trim());
  put("actor", idOf(filters.actor.trim()) ?? filters.actor.trim());
  put("target", idOf(filters.target.trim()) ?? filters.target.trim());
  put("from", moment(filters.from));
  put("to", moment(filters.to));
  put("cursor", cursor);
  return `/operations/audit?${asked}`;
}

/** A local time as the API takes moments. Undefined for none. */
function moment(local: string): string | undefined {
  const at = local ? new Date(local) : undefined;
  return at && !Number.isNaN(at.getTime()) ? at.toISOString() : undefined;
}

/** "user.admin_updated" -> "user: admin updated". */
export function actionText(action: string): string {
  const [area = "", ...rest] = action.split(".");
  return rest.length ? `${words(area)}: ${words(rest.join(" "))}` : words(area);
}

/** Metadata as short pairs of words, with e-mails in place of the ids that `nameOf` knows. */
export function metadataText(
  metadata: Readonly<Record<string, unknown>>,
  nameOf: (id: string) => string | undefined = () => undefined,
): string[] {
  return Object.entries(metadata)
    .filter(([name]) => name !== "cut")
    .map(([name, value]) => {
      const known = typeof value === "string" ? nameOf(value) : undefined;
      return `${words(known ? name.replace(/Id$/, "") : name)}: ${known ?? valueText(value)}`;
    })
    .concat(metadata.cut === true ? ["more was not kept"] : []);
}

function valueText(value: unknown): string {
  if (value === true) return "yes";
  if (value === false) return "no";
  if (value === null || value === undefined || value === "") return "none";
  if (Array.isArray(value)) return value.map(valueText).join(", ") || "none";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function words(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replace(/_/g, " ")
    .toLowerCase();
}
