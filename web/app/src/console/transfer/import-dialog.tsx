/** A dashboard from a file: a document of this product or of Freeboard, or a board file of the classic Freeboard. */

import { useEffect, useMemo, useState } from "preact/hooks";
import type { BoardDocument, DashboardAnswer, DatasourceEntry } from "../../board/document.js";
import { call, messageOf } from "../api.js";
import { go } from "../router.js";
import { Dialog } from "../ui/dialog.js";
import { Choice, Fault, Field } from "../ui/field.js";
import { importDocument, NotImportable, type Imported } from "./freeboard.js";

interface Profile {
  id: string;
  name: string;
}

const KEYS = ["brokerProfileId", "credentialProfileId"] as const;
type Key = (typeof KEYS)[number];

export function ImportDialog({ onClose }: { onClose: () => void }) {
  const [text, setText] = useState("");
  const [name, setName] = useState("Imported");
  const [mapping, setMapping] = useState<Record<string, string>>({});
  const [profiles, setProfiles] = useState<Record<Key, Profile[]>>({ brokerProfileId: [], credentialProfileId: [] });
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    const set = (key: Key) => (all: Profile[]) => setProfiles((before) => ({ ...before, [key]: all }));
    call<Profile[]>("GET", "/broker-profiles").then(set("brokerProfileId"), () => undefined);
    call<Profile[]>("GET", "/credential-profiles").then(set("credentialProfileId"), () => undefined);
  }, []);

  const read = useMemo((): Imported | string | undefined => {
    if (!text.trim()) return undefined;
    try {
      return importDocument(text, name);
    } catch (error) {
      return error instanceof NotImportable ? error.message : String(error);
    }
  }, [text, name]);
  const imported = typeof read === "object" ? read : undefined;
  const missing = imported ? unknownProfiles(imported.document, profiles) : [];

  async function take(file: File | undefined): Promise<void> {
    if (!file) return;
    setName(file.name.replace(/\.json$/i, "") || "Imported");
    setText(await file.text());
  }

  async function create(): Promise<void> {
    if (!imported) return;
    setBusy(true);
    setFault(undefined);
    try {
      const document = mapped(imported.document, mapping);
      const made = await call<DashboardAnswer>("POST", "/dashboards", { body: { document } });
      go("dashboards", made.id, "edit");
    } catch (error) {
      setFault(messageOf(error));
      setBusy(false);
    }
  }

  return (
    <Dialog
      title="Import a dashboard"
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="button" class="primary" disabled={!imported || busy} onClick={() => void create()}>
            Import
          </button>
        </>
      }
    >
      <div class="field">
        <label for="import-file">File</label>
        <input
          id="import-file"
          type="file"
          accept=".json,application/json"
          onChange={(event) => void take(event.currentTarget.files?.[0])}
        />
        <p class="hint">A document that was exported here or from Freeboard, or a board file of the classic Freeboard.</p>
      </div>
      <Field label="Or its text" mono rows={6} value={text} onInput={setText} />
      <Fault>{fault ?? (typeof read === "string" ? read : undefined)}</Fault>
      {imported ? (
        <>
          <p>
            <b>{imported.document.title}</b>:{" "}
            <span class="note">
              {imported.document.panes.length} panes, {imported.document.datasources.length} datasources
            </span>
          </p>
          {missing.map(({ key, id, used }) => (
            <Choice
              key={key + id}
              label={`${key === "brokerProfileId" ? "Broker" : "Credential"} profile ${id}, of ${used}`}
              value={mapping[id] ?? ""}
              choices={[["", "Leave it as it is"], ...profiles[key].map((one) => [one.id, one.name] as const)]}
              onChange={(chosen) => setMapping((before) => ({ ...before, [id]: chosen }))}
              hint="There is no such profile here. Choose the one that takes its place."
            />
          ))}
          {imported.report.length ? (
            <div data-report>
              <p class="state warn">
                <span aria-hidden="true">▲</span> What could not be carried over:
              </p>
              <ul class="differences">
                {imported.report.map((line, index) => (
                  <li key={index}>{line}</li>
                ))}
              </ul>
            </div>
          ) : (
            <p class="state ok">
              <span aria-hidden="true">●</span> Everything can be carried over.
            </p>
          )}
        </>
      ) : null}
    </Dialog>
  );
}

function unknownProfiles(document: BoardDocument, profiles: Record<Key, Profile[]>): { key: Key; id: string; used: string }[] {
  const found = new Map<string, { key: Key; id: string; used: string }>();
  for (const { id, title, settings } of document.datasources ?? []) {
    for (const key of KEYS) {
      const profile = settings?.[key];
      if (typeof profile !== "string" || profiles[key].some((one) => one.id === profile)) continue;
      if (!found.has(profile)) found.set(profile, { key, id: profile, used: `“${title || id}”` });
    }
  }
  return [...found.values()];
}

function mapped(document: BoardDocument, mapping: Record<string, string>): BoardDocument {
  const change = (datasource: DatasourceEntry): DatasourceEntry => {
    const settings = { ...datasource.settings };
    for (const key of KEYS) {
      const to = typeof settings[key] === "string" ? mapping[settings[key] as string] : undefined;
      if (to) settings[key] = to;
    }
    return datasource.settings ? { ...datasource, settings } : datasource;
  };
  return { ...document, datasources: document.datasources.map(change) };
}
