/** What the API says of profiles and datasources that are not saved yet. */

import { call } from "../api.js";

export interface UsableProfiles {
  brokers: {
    id: string;
    name: string;
    transport: "iot-core" | "external";
    allowPublicUse: boolean;
    topicAllowlist: string[];
  }[];
  credentials: {
    id: string;
    name: string;
    type: "none" | "bearer" | "basic" | "header";
    allowPublicUse: boolean;
    destinations: string[];
  }[];
}

export interface Preview {
  messages: { payload: unknown; topic: string | null; at: string }[];
  /** Why there are none, or no more. Null when nothing went wrong. */
  fault: { code: string; message: string } | null;
}

export interface TopicCheck {
  valid: boolean;
  /** Why a datasource with it would show nothing, for people. Null when nothing stands against it. */
  problem: string | null;
  wildcard: boolean;
  /** The filter of the broker's allowlist that covers it. Null when none does; "#" when the list is empty. */
  coveredBy: string | null;
  /** The filter of the rule of IoT Core that feeds it. Null where there is none, and for brokers of one's own. */
  fedBy: string | null;
}

export function preview(
  dashboardId: string,
  datasource: { type: string; settings: unknown },
  signal: AbortSignal,
): Promise<Preview> {
  return call("POST", "/datasources:preview", { body: { dashboardId, ...datasource }, signal });
}

export function checkTopic(
  dashboardId: string,
  brokerProfileId: string,
  topic: string,
  signal: AbortSignal,
): Promise<TopicCheck> {
  return call("POST", "/topics:check", { body: { dashboardId, brokerProfileId, topic }, signal });
}
