/** Credential profiles: secrets that dashboards use, and nobody is shown. */

import { useState } from "preact/hooks";
import { messageOf } from "../api.js";
import { Check, Choice, Fault, Field } from "../ui/field.js";
import { ListField } from "../ui/list-field.js";
import { useLoad } from "../ui/load.js";
import { credentialLosses } from "./profiles/losses.js";
import { ProfileActions } from "./profiles/profile-actions.js";
import { ProfileDialog, type FormProps } from "./profiles/profile-dialog.js";
import {
  CREDENTIAL_TYPES,
  credentialBody,
  credentialFields,
  credentialProblem,
  keepsSecret,
  type Broker,
  type Credential,
  type CredentialFields,
} from "./profiles/profiles.js";
import { PublicUse } from "./profiles/public-use.js";
import { remove } from "./profiles/remove.js";
import { UseCount } from "./profiles/uses.js";
import "../../style/admin.css";

const PATH = "/credential-profiles";
const NAMES = {
  name: "name",
  type: "kind",
  destinations: "destinations",
  allowPublicUse: "public use",
  description: "description",
  headerName: "header",
} as const;

export function Credentials() {
  const { value: all, error, reload } = useLoad<Credential[]>(PATH);
  const { value: brokers } = useLoad<Broker[]>("/broker-profiles");
  const [open, setOpen] = useState<{ profile: Credential | undefined }>();

  const done = (): void => {
    setOpen(undefined);
    reload();
  };
  const usedBy = (id: string): string[] =>
    (brokers ?? []).filter(({ credentialProfileId }) => credentialProfileId === id).map(({ name }) => name);
  return (
    <>
      <div class="heading">
        <h2>Credential profiles</h2>
        <span class="grow" />
        <button type="button" class="primary" onClick={() => setOpen({ profile: undefined })}>
          New credential profile
        </button>
      </div>
      <Fault>{error ? messageOf(error) : undefined}</Fault>
      {all || error ? null : <p class="empty">Loading…</p>}
      {all && !all.length ? (
        <div class="empty">
          <p>There is no credential profile yet.</p>
          <p>A source or a broker that asks for a token or a password needs one. The secret goes in, and is never shown again.</p>
        </div>
      ) : null}
      {all?.length ? (
        <div class="scroll" tabIndex={0} role="region" aria-label="Credential profiles">
          <table class="list folds">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Kind</th>
                <th scope="col">May be sent to</th>
                <th scope="col">Public use</th>
                <th scope="col">Used by</th>
                <th scope="col">
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {sorted(all).map((one) => (
                <tr key={one.id}>
                  <th scope="row">
                    {one.name}
                    {one.description ? <div class="note cut">{one.description}</div> : null}
                  </th>
                  <td>
                    {CREDENTIAL_TYPES.find(([type]) => type === one.type)?.[1]}
                    {one.type === "header" ? <div class="note mono">{one.headerName}</div> : null}
                  </td>
                  <td class="mono">
                    {one.destinations.length ? (
                      one.destinations.map((destination) => <div key={destination}>{destination}</div>)
                    ) : (
                      <span class="note">brokers only</span>
                    )}
                  </td>
                  <td>
                    <PublicUse allowed={one.allowPublicUse} />
                  </td>
                  <td>
                    <UseCount loaded={all} path={PATH} id={one.id} name={one.name} brokers={usedBy(one.id)} />
                  </td>
                  <ProfileActions
                    name={one.name}
                    onChange={() => setOpen({ profile: one })}
                    onDelete={() => void remove(PATH, one, usedBy(one.id)).then((gone) => gone && reload())}
                  />
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {open ? (
        <ProfileDialog
          what="credential profile"
          path={PATH}
          stored={open.profile}
          fieldsOf={credentialFields}
          bodyOf={credentialBody}
          problemOf={credentialProblem}
          lossesOf={credentialLosses}
          names={NAMES}
          form={(form) => <CredentialForm {...form} stored={open.profile} />}
          onDone={done}
          onClose={done}
        />
      ) : null}
    </>
  );
}

function CredentialForm({ fields, set, nameFault, stored }: FormProps<CredentialFields> & { stored: Credential | undefined }) {
  const keep = keepsSecret(fields, stored);
  const hint = keep ? "A secret is stored. Leave it empty to keep it." : "It is stored encrypted, and never shown again.";
  return (
    <>
      <Field label="Name" value={fields.name} onInput={(value) => set("name", value)} placeholder="Weather service" fault={nameFault} required />
      <Choice label="Kind" value={fields.type} onChange={(value) => set("type", value)} choices={CREDENTIAL_TYPES} />
      {fields.type === "bearer" ? (
        <Field
          label="Token"
          type="password"
          value={fields.token}
          onInput={(value) => set("token", value)}
          autocomplete="new-password"
          hint={hint}
        />
      ) : null}
      {fields.type === "basic" ? (
        <div class="columns wide">
          <Field
            label="User name"
            value={fields.username}
            onInput={(value) => set("username", value)}
            hint={keep ? "Leave both empty to keep them." : undefined}
          />
          <Field
            label="Password"
            type="password"
            value={fields.password}
            onInput={(value) => set("password", value)}
            autocomplete="new-password"
            hint={hint}
          />
        </div>
      ) : null}
      {fields.type === "header" ? (
        <div class="columns wide">
          <Field label="Header" mono value={fields.headerName} onInput={(value) => set("headerName", value)} placeholder="X-Api-Key" />
          <Field
            label="Value"
            type="password"
            value={fields.headerValue}
            onInput={(value) => set("headerValue", value)}
            autocomplete="new-password"
            hint={hint}
          />
        </div>
      ) : null}
      <ListField
        label="May be sent to"
        one="destination"
        values={fields.destinations}
        onChange={(value) => set("destinations", value)}
        placeholder="https://api.example.com"
        hint="A scheme and a host, such as https://api.example.com or wss://*.example.com:8443. Without any, it serves broker profiles only."
      />
      <Check
        label="Viewers without a login may watch what it feeds"
        value={fields.allowPublicUse}
        onChange={(value) => set("allowPublicUse", value)}
        hint="The secret itself is never sent to a browser."
      />
      <Field label="Description" value={fields.description} onInput={(value) => set("description", value)} rows={2} />
    </>
  );
}

function sorted(all: readonly Credential[]): Credential[] {
  return [...all].sort((a, b) => a.name.localeCompare(b.name));
}
