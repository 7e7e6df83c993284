/** Credential and broker profiles as the API has them, and as a form has them. */

export type CredentialType = "bearer" | "basic" | "header" | "none";
export type Transport = "iot-core" | "external";

export interface Credential {
  id: string;
  revision: number;
  name: string;
  type: CredentialType;
  destinations: string[];
  allowPublicUse: boolean;
  description: string;
  headerName: string | null;
  /** The names of the parts that are stored. Their values are never told. */
  secret: Record<string, "***">;
}

export interface Broker {
  id: string;
  revision: number;
  name: string;
  transport: Transport;
  brokerUrl: string | null;
  credentialProfileId: string | null;
  topicAllowlist: string[];
  allowPublicUse: boolean;
  description: string;
  tls: { ca?: string };
}

export interface CredentialFields {
  name: string;
  type: CredentialType;
  destinations: string[];
  allowPublicUse: boolean;
  description: string;
  headerName: string;
  token: string;
  username: string;
  password: string;
  headerValue: string;
}

export interface BrokerFields {
  name: string;
  transport: Transport;
  brokerUrl: string;
  credentialProfileId: string;
  topicAllowlist: string[];
  allowPublicUse: boolean;
  description: string;
  ca: string;
}

export const CREDENTIAL_TYPES: readonly (readonly [CredentialType, string])[] = [
  ["bearer", "Bearer token"],
  ["basic", "User name and password"],
  ["header", "A header of its own"],
  ["none", "None: only says where to"],
];
export const TRANSPORTS: readonly (readonly [Transport, string])[] = [
  ["iot-core", "AWS IoT Core of this account"],
  ["external", "A broker elsewhere"],
];

type Part = "token" | "username" | "password" | "headerValue";
/** The parts of the secret that each type has. */
export const SECRET_PARTS: Readonly<Record<CredentialType, readonly Part[]>> = {
  bearer: ["token"],
  basic: ["username", "password"],
  header: ["headerValue"],
  none: [],
};

export function credentialFields(stored?: Credential): CredentialFields {
  return {
    name: stored?.name ?? "",
    type: stored?.type ?? "bearer",
    destinations: stored?.destinations ?? [],
    allowPublicUse: stored?.allowPublicUse ?? false,
    description: stored?.description ?? "",
    headerName: stored?.headerName ?? "",
    token: "",
    username: "",
    password: "",
    headerValue: "",
  };
}

export function brokerFields(stored?: Broker): BrokerFields {
  return {
    name: stored?.name ?? "",
    transport: stored?.transport ?? "iot-core",
    brokerUrl: stored?.brokerUrl ?? "",
    credentialProfileId: stored?.credentialProfileId ?? "",
    topicAllowlist: stored?.topicAllowlist ?? [],
    allowPublicUse: stored?.allowPublicUse ?? false,
    description: stored?.description ?? "",
    ca: stored?.tls.ca ?? "",
  };
}

/** Whether the stored secret can stay: it has just the parts that the type needs. */
export function keepsSecret(fields: CredentialFields, stored: Credential | undefined): boolean {
  const parts = SECRET_PARTS[fields.type];
  return stored !== undefined && parts.length > 0 && parts.every((part) => part in stored.secret);
}

/** What has to be put right before it can be saved. */
export function credentialProblem(fields: CredentialFields, stored: Credential | undefined): string | undefined {
  if (!fields.name.trim()) return "Give it a name.";
  if (fields.type === "header" && !fields.headerName.trim()) return "Say which header carries the secret.";
  const parts = SECRET_PARTS[fields.type];
  const given = parts.filter((part) => fields[part].trim());
  if (given.length === parts.length) return undefined;
  if (!keepsSecret(fields, stored)) return parts.length > 1 ? "Fill in the user name and the password." : "Fill in the secret.";
  return given.length ? "Fill in both the user name and the password, or leave both empty to keep them." : undefined;
}

export function brokerProblem(fields: BrokerFields): string | undefined {
  if (!fields.name.trim()) return "Give it a name.";
  if (fields.transport === "external" && !fields.brokerUrl.trim()) return "Say where the broker is.";
  return undefined;
}

/** What is sent to save it. Without a new secret the stored one stays. */
export function credentialBody(fields: CredentialFields, stored: Credential | undefined): Record<string, unknown> {
  const parts = SECRET_PARTS[fields.type];
  const given = parts.length > 0 && parts.every((part) => fields[part].trim());
  const drops = !parts.length && stored !== undefined && Object.keys(stored.secret).length > 0;
  return {
    name: fields.name.trim(),
    type: fields.type,
    destinations: stated(fields.destinations),
    allowPublicUse: fields.allowPublicUse,
    description: fields.description,
    headerName: fields.type === "header" ? fields.headerName.trim() : null,
    ...(given ? { secret: Object.fromEntries(parts.map((part) => [part, fields[part]])) } : drops ? { secret: {} } : {}),
  };
}

export function brokerBody(fields: BrokerFields): Record<string, unknown> {
  const external = fields.transport === "external";
  return {
    name: fields.name.trim(),
    transport: fields.transport,
    brokerUrl: external ? fields.brokerUrl.trim() : null,
    credentialProfileId: external && fields.credentialProfileId ? fields.credentialProfileId : null,
    topicAllowlist: stated(fields.topicAllowlist),
    allowPublicUse: fields.allowPublicUse,
    description: fields.description,
    tls: external && fields.ca.trim() ? { ca: fields.ca } : {},
  };
}

/** The entries of a list that are not empty, each once. */
export function stated(list: readonly string[]): string[] {
  return [...new Set(list.map((one) => one.trim()).filter(Boolean))];
}

/** Names of the fields in which two forms differ. */
export function differing<F extends object>(mine: F, theirs: F, names: Partial<Record<keyof F, string>>): string[] {
  return (Object.keys(names) as (keyof F)[])
    .filter((field) => JSON.stringify(mine[field]) !== JSON.stringify(theirs[field]))
    .map((field) => names[field] ?? String(field));
}
