/** What a change of a profile takes away, and from whom. It is told before the change is made. */

import { stated, type Broker, type BrokerFields, type Credential, type CredentialFields } from "./profiles.js";

export interface Uses {
  dashboards: { id: string; title: string; visibility: "private" | "link" | "public" }[];
  /** Whether there are more than these. */
  more: boolean;
}

/** How many are watching those dashboards. Undefined: it is not known. */
export interface Watching {
  all: number;
  /** Without a login: by link, and of public dashboards. */
  guests: number;
}

export type Loss =
  /** The profile is gone. */
  | "deleted"
  /** It is for members only from now on. */
  | "withdrawn"
  /** It is entered at another place, so every stream connects anew. */
  | "moved"
  /** Less is allowed: what is not covered any longer has no stream. */
  | "narrowed";

export function credentialLosses(before: Credential, fields: CredentialFields): Loss[] {
  const kept = new Set(stated(fields.destinations));
  return [
    ...(before.allowPublicUse && !fields.allowPublicUse ? (["withdrawn"] as const) : []),
    ...(before.destinations.some((one) => !kept.has(one)) ? (["narrowed"] as const) : []),
  ];
}

export function brokerLosses(before: Broker, fields: BrokerFields): Loss[] {
  const external = fields.transport === "external";
  const url = external ? fields.brokerUrl.trim() : "";
  const moved =
    before.transport !== fields.transport ||
    (before.brokerUrl ?? "") !== url ||
    (before.credentialProfileId ?? "") !== (external ? fields.credentialProfileId : "") ||
    (before.tls.ca ?? "") !== (external ? fields.ca : "");
  return [
    ...(before.allowPublicUse && !fields.allowPublicUse ? (["withdrawn"] as const) : []),
    ...(moved ? (["moved"] as const) : []),
    ...(narrower(before.topicAllowlist, stated(fields.topicAllowlist)) ? (["narrowed"] as const) : []),
  ];
}

/** An empty list allows everything. */
function narrower(before: readonly string[], after: readonly string[]): boolean {
  if (!after.length || after.includes("#")) return false;
  return !before.length || before.some((filter) => !after.includes(filter));
}

/** What is lost, in sentences. Undefined when nobody is concerned. */
export function lossText(losses: readonly Loss[], uses: Uses, watching: Watching | undefined): string | undefined {
  const all = uses.dashboards.length;
  if (!losses.length || !all) return undefined;
  const said: string[] = [`${uses.more ? `More than ${all} dashboards use` : all === 1 ? "One dashboard uses" : `${all} dashboards use`} it.`];
  if (losses.includes("deleted")) {
    said.push("Their datasources that use it have no stream any longer, for nobody.");
    said.push(counted(watching?.all, "watching them"));
  } else {
    if (losses.includes("withdrawn")) {
      const open = uses.dashboards.filter(({ visibility }) => visibility !== "private").length;
      if (open || uses.more) {
        said.push(`${uses.more ? `At least ${open}` : open === all ? (all === 1 ? "It" : "All") : open} ${open === 1 ? "is" : "are"} shown without a login: there, what this profile feeds ends for whoever has none.`);
        said.push(counted(watching?.guests, "watching without a login"));
      } else {
        said.push(all === 1 ? "It is for members only, who keep it." : "All are for members only, who keep them.");
      }
    }
    if (losses.includes("moved")) said.push("All streams that it feeds connect anew, and viewers are without values for some seconds.");
    if (losses.includes("narrowed")) said.push("What is not on the list any longer has no stream any longer.");
  }
  return said.join(" ");
}

function counted(count: number | undefined, doing: string): string {
  if (count === undefined) return `How many are ${doing} now could not be checked.`;
  return count === 0 ? `Nobody is ${doing} now.` : `${count} ${count === 1 ? "is" : "are"} ${doing} now.`;
}
