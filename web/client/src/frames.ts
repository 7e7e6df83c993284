/** The frames of the browser protocol, as they are on the wire, and the answer of the session endpoint. */

/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** Why a subscription ended for good or for now, as the server says it. */
export type EndReason = "revoked" | "changed" | "expired" | "disabled" | "limit";

/** A point of a history: the values of one bucket. `at` is ISO 8601, UTC, and is where the bucket begins. */
export interface Point {
  at: string;
  least?: number | null;
  most?: number | null;
  last?: Json;
  seq: string;
}

/** What the server may send. A field that has nothing to say is absent. Unknown types and fields are ignored. */
export interface Frame {
  type: string;
  datasourceId?: string | null;
  requestId?: string | null;
  timestamp?: string;
  ok?: boolean;
  errorCode?: string;
  message?: string;
  reason?: EndReason;
  retryable?: boolean;
  retryAfterMs?: number;
  recovered?: boolean;
  status?: "connecting" | "connected" | "disconnected" | "error";
  payload?: Json;
  seq?: string;
  topic?: string;
  retained?: boolean;
  deleted?: boolean;
  points?: Point[];
  end?: boolean;
  dashboardId?: string;
  revision?: number;
  messages?: Frame[];
}

/** A session token. Times are ISO 8601 by the server's clock. Without `refreshAfter` it is refreshed a minute before its end. */
export interface Session {
  token: string;
  expiresAt: string;
  refreshAfter?: string;
  serverTime?: string;
}
