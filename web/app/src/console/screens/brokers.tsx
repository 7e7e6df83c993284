/** Broker profiles: MQTT brokers that dashboards read topics from. */

import { useState } from "preact/hooks";
import { messageOf } from "../api.js";
import { href } from "../router.js";
import { Check, Choice, Fault, Field } from "../ui/field.js";
import { ListField } from "../ui/list-field.js";
import { useLoad } from "../ui/load.js";
import { brokerLosses } from "./profiles/losses.js";
import { ProfileActions } from "./profiles/profile-actions.js";
import { ProfileDialog, type FormProps } from "./profiles/profile-dialog.js";
import {
  TRANSPORTS,
  brokerBody,
  brokerFields,
  brokerProblem,
  type Broker,
  type BrokerFields,
  type Credential,
} from "./profiles/profiles.js";
import { PublicUse } from "./profiles/public-use.js";
import { remove } from "./profiles/remove.js";
import { UseCount } from "./profiles/uses.js";
import "../../style/admin.css";

const PATH = "/broker-profiles";
const NAMES = {
  name: "name",
  transport: "kind",
  brokerUrl: "address",
  credentialProfileId: "credential",
  topicAllowlist: "topics",
  allowPublicUse: "public use",
  description: "description",
  ca: "certificates",
} as const;
/** Topics that are shown in the list. */
const SHOWN = 4;

export function Brokers() {
  const { value: all, error, reload } = useLoad<Broker[]>(PATH);
  const { value: credentials } = useLoad<Credential[]>("/credential-profiles");
  const [open, setOpen] = useState<{ profile: Broker | undefined }>();

  const done = (): void => {
    setOpen(undefined);
    reload();
  };
  return (
    <>
      <div class="heading">
        <h2>Broker profiles</h2>
        <span class="grow" />
        <button type="button" class="primary" onClick={() => setOpen({ profile: undefined })}>
          New broker profile
        </button>
      </div>
      <Fault>{error ? messageOf(error) : undefined}</Fault>
      {all || error ? null : <p class="empty">Loading…</p>}
      {all && !all.length ? (
        <div class="empty">
          <p>There is no broker profile yet.</p>
          <p>A datasource reads MQTT topics through one: of AWS IoT Core, or of a broker elsewhere.</p>
        </div>
      ) : null}
      {all?.length ? (
        <div class="scroll" tabIndex={0} role="region" aria-label="Broker profiles">
          <table class="list folds">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Broker</th>
                <th scope="col">Topics</th>
                <th scope="col">Public use</th>
                <th scope="col">Used by</th>
                <th scope="col">
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {[...all]
                .sort((a, b) => a.name.localeCompare(b.name))
                .map((one) => (
                  <tr key={one.id}>
                    <th scope="row">
                      {one.name}
                      {one.description ? <div class="note cut">{one.description}</div> : null}
                    </th>
                    <td>
                      {one.transport === "iot-core" ? "AWS IoT Core" : <span class="mono">{one.brokerUrl}</span>}
                      {one.credentialProfileId ? (
                        <div class="note">
                          with {credentials?.find(({ id }) => id === one.credentialProfileId)?.name ?? "a credential that is gone"}
                        </div>
                      ) : null}
                    </td>
                    <td class="mono">
                      {one.topicAllowlist.length ? (
                        one.topicAllowlist.slice(0, SHOWN).map((topic) => <div key={topic}>{topic}</div>)
                      ) : (
                        <span class="note">all</span>
                      )}
                      {one.topicAllowlist.length > SHOWN ? (
                        <div class="note">and {one.topicAllowlist.length - SHOWN} more</div>
                      ) : null}
                    </td>
                    <td>
                      <PublicUse allowed={one.allowPublicUse} />
                    </td>
                    <td>
                      <UseCount loaded={all} path={PATH} id={one.id} name={one.name} />
                    </td>
                    <ProfileActions
                      name={one.name}
                      onChange={() => setOpen({ profile: one })}
                      onDelete={() => void remove(PATH, one).then((gone) => gone && reload())}
                    />
                  </tr>
                ))}
            </tbody>
          </table>
        </div>
      ) : null}
      {open ? (
        <ProfileDialog
          what="broker profile"
          path={PATH}
          stored={open.profile}
          fieldsOf={brokerFields}
          bodyOf={brokerBody}
          problemOf={brokerProblem}
          lossesOf={brokerLosses}
          names={NAMES}
          form={(form) => <BrokerForm {...form} credentials={credentials ?? []} />}
          onDone={done}
          onClose={done}
        />
      ) : null}
    </>
  );
}

function BrokerForm({ fields, set, nameFault, credentials }: FormProps<BrokerFields> & { credentials: Credential[] }) {
  const external = fields.transport === "external";
  const basic = credentials.filter(({ type }) => type === "basic");
  return (
    <>
      <Field label="Name" value={fields.name} onInput={(value) => set("name", value)} placeholder="Plant broker" fault={nameFault} required />
      <Choice label="Kind" value={fields.transport} onChange={(value) => set("transport", value)} choices={TRANSPORTS} />
      {external ? (
        <>
          <Field
            label="Address"
            mono
            value={fields.brokerUrl}
            onInput={(value) => set("brokerUrl", value)}
            placeholder="mqtts://broker.example.com:8883"
            hint="mqtts:// is encrypted. No user name or password in it."
          />
          <Choice
            label="Credential"
            value={fields.credentialProfileId}
            onChange={(value) => set("credentialProfileId", value)}
            choices={[["", "None"], ...basic.map(({ id, name }) => [id, name] as const)]}
            hint={
              basic.length ? undefined : (
                <>
                  A broker takes a credential profile with user name and password. <a href={href("credentials")}>Make one</a>.
                </>
              )
            }
          />
        </>
      ) : null}
      <ListField
        label="Topics that may be read"
        one="topic filter"
        values={fields.topicAllowlist}
        onChange={(value) => set("topicAllowlist", value)}
        placeholder="plant/+/temperature"
        hint="A datasource's topic has to be covered by one of them. + stands for one level, # at the end for all that follow. Without any, every topic may be read."
      />
      <Check
        label="Viewers without a login may watch what it feeds"
        value={fields.allowPublicUse}
        onChange={(value) => set("allowPublicUse", value)}
        hint={
          fields.allowPublicUse && !fields.topicAllowlist.some((one) => one.trim()) ? (
            <span class="state warn">
              <span aria-hidden="true">▲</span> With no topic filter, an editor can make any topic of this broker public.
            </span>
          ) : undefined
        }
      />
      {external ? (
        <Field
          label="Certificates of the broker's authority (PEM)"
          mono
          rows={4}
          value={fields.ca}
          onInput={(value) => set("ca", value)}
          placeholder="-----BEGIN CERTIFICATE-----"
          hint="Only for a broker whose certificate no public authority signed. They add trust, and switch no check off."
        />
      ) : null}
      <Field label="Description" value={fields.description} onInput={(value) => set("description", value)} rows={2} />
    </>
  );
}
