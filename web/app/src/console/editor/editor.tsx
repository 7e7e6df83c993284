/** The editor of one dashboard: a grid of panes with live values, undo, and saving without losing anything. */

import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Binding, BoardDocument, DashboardAnswer, DatasourceEntry, Pane } from "../../board/document.js";
import { boundTo, watch, watchedKey, type Live } from "../../board/live.js";
import { LivePill } from "../../viewer/header.js";
import { ApiError, call, login, messageOf } from "../api.js";
import { go, href } from "../router.js";
import { exportDocument } from "../transfer/freeboard.js";
import { confirm } from "../ui/confirm.js";
import { Dialog } from "../ui/dialog.js";
import { Fault } from "../ui/field.js";
import { toast } from "../ui/toast.js";
import { ConflictDialog } from "./conflict.js";
import { DatasourceDialog } from "./datasource-dialog.js";
import { Draft, forget, freshId } from "./draft.js";
import { Grid } from "./grid.js";
import { freePlace, without } from "./layout.js";
import { firstBinding, PaneDialog } from "./pane-dialog.js";
import type { UsableProfiles } from "./profiles.js";
import { SettingsDialog } from "./settings-dialog.js";
import { ShareDialog } from "./share.js";

type Open =
  | { kind: "pane"; pane: Pane; isNew: boolean }
  | { kind: "datasource"; datasource: DatasourceEntry | undefined; then: "pane" | "list" }
  | { kind: "datasources" | "settings" | "share" }
  | { kind: "conflict"; theirs: DashboardAnswer };

export function Editor({ parts: [id = ""] }: { parts: string[] }) {
  const [draft, setDraft] = useState<Draft>();
  const [fault, setFault] = useState<string>();
  useEffect(() => {
    call<DashboardAnswer>("GET", `/dashboards/${encodeURIComponent(id)}`).then(
      (answer) => (answer.canEdit ? setDraft(new Draft(answer)) : setFault("You may watch this dashboard, but not edit it.")),
      (error: unknown) => setFault(messageOf(error)),
    );
  }, [id]);
  if (fault) {
    return (
      <main class="notice">
        <h1>This dashboard cannot be edited</h1>
        <p>{fault}</p>
        <a class="button" href={href("dashboards")}>
          All dashboards
        </a>
      </main>
    );
  }
  return draft ? <Editing draft={draft} /> : <p class="empty">Loading…</p>;
}

function Editing({ draft }: { draft: Draft }) {
  const document = draft.document.value;
  const saved = draft.saved.value;
  const dirty = draft.dirty.value;
  const path = `/dashboards/${encodeURIComponent(saved.id)}`;
  const [open, setOpen] = useState<Open>();
  const [profiles, setProfiles] = useState<UsableProfiles>();
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);
  const spoken = useSignal("");
  const live = useLive(saved, document);

  useEffect(() => {
    call<UsableProfiles>("GET", `${path}/usable-profiles`).then(setProfiles, (error: unknown) => setFault(messageOf(error)));
    if (draft.restored) toast("Your unsaved changes from before are here again.");
  }, [path]);

  const keys = useRef<(event: KeyboardEvent) => void>(() => undefined);
  keys.current = (event) => {
    if (!(event.ctrlKey || event.metaKey) || open) return;
    const key = event.key.toLowerCase();
    if (key === "s") {
      event.preventDefault();
      void save();
    } else if ((key === "z" || key === "y") && !(event.target as Element).closest("input, textarea, select")) {
      event.preventDefault();
      if (key === "y" || event.shiftKey) draft.redo();
      else undo();
    }
  };
  useEffect(() => {
    const listener = (event: KeyboardEvent): void => keys.current(event);
    addEventListener("keydown", listener);
    return () => removeEventListener("keydown", listener);
  }, []);

  function undo(): void {
    const what = draft.undo();
    if (what) spoken.value = `Undone: ${what}`;
  }

  async function save(over?: number): Promise<void> {
    setBusy(true);
    setFault(undefined);
    try {
      const answer = await call<DashboardAnswer>("PUT", path, {
        body: { document: draft.document.value },
        revision: over ?? draft.revision,
      });
      draft.settle(answer);
      setOpen(undefined);
      toast("Saved. Viewers see it now.");
    } catch (error) {
      if (error instanceof ApiError && error.status === 409) await conflict();
      else setFault(messageOf(error));
    } finally {
      setBusy(false);
    }
  }

  async function conflict(): Promise<void> {
    try {
      setOpen({ kind: "conflict", theirs: await call<DashboardAnswer>("GET", path) });
    } catch (error) {
      setFault(messageOf(error));
    }
  }

  async function saveAsCopy(): Promise<void> {
    try {
      const title = `${draft.document.value.title} (copy)`.slice(0, 200);
      const made = await call<DashboardAnswer>("POST", "/dashboards", { body: { document: { ...draft.document.value, title } } });
      forget(saved.id);
      toast("Your version is a dashboard of its own now.");
      go("dashboards", made.id, "edit");
    } catch (error) {
      setFault(messageOf(error));
    }
  }

  function newPane(title: string, bindings: Binding[]): void {
    const { panes, columns } = draft.document.value;
    const id = freshId("pane", panes.map((pane) => pane.id), "pane");
    const layout = freePlace(panes, { w: Math.ceil(columns / 4), h: 3 }, columns);
    const widgets = [{ id: "widget", type: "value", settings: { bindings } }];
    setOpen({ kind: "pane", isNew: true, pane: { id, title, layout: { ...layout, i: id }, widgets } });
  }

  function usePane(pane: Pane, isNew: boolean): void {
    const panes = isNew ? [...document.panes, pane] : document.panes.map((one) => (one.id === pane.id ? pane : one));
    draft.change(isNew ? "Pane added" : "Pane changed", { ...document, panes });
    setOpen(undefined);
  }

  function useDatasource(datasource: DatasourceEntry, at: string | undefined, then: "pane" | "list"): void {
    const known = document.datasources.some(({ id }) => id === datasource.id);
    const datasources = known
      ? document.datasources.map((one) => (one.id === datasource.id ? datasource : one))
      : [...document.datasources, datasource];
    draft.change(known ? "Datasource changed" : "Datasource added", { ...document, datasources });
    if (then === "pane") newPane(datasource.title ?? "", [{ datasourceId: datasource.id, path: at ?? "" }]);
    else setOpen({ kind: "datasources" });
  }

  function deletePane(pane: Pane): void {
    draft.change("Pane deleted", { ...document, panes: without(document.panes, pane.id) });
    toast("The pane is deleted. Undo brings it back.");
  }

  async function discard(): Promise<void> {
    const agreed = await confirm({
      title: "Discard your changes?",
      text: "The dashboard is as it was last saved then. This cannot be undone.",
      action: "Discard",
      danger: true,
    });
    if (agreed) draft.settle(saved);
  }

  return (
    <>
      <header class="bar">
        <a class="button quiet" href={href("dashboards")} aria-label="All dashboards">
          <span aria-hidden="true">←</span>
        </a>
        <h1>{document.title}</h1>
        <span class={`pill ${dirty ? "" : "live"}`} data-dirty={dirty}>
          <i aria-hidden="true" />
          {dirty ? "Not saved yet" : "Saved"}
        </span>
        {live ? (
          <span class="optional">
            <LivePill live={live} />
          </span>
        ) : null}
        <span class="grow" />
        <button type="button" disabled={!draft.done.value.length} onClick={undo} title={draft.done.value.at(-1)?.what}>
          Undo
        </button>
        <button type="button" class="optional" disabled={!draft.undone.value.length} onClick={() => draft.redo()}>
          Redo
        </button>
        {saved.canShare ? (
          <button type="button" onClick={() => setOpen({ kind: "share" })}>
            Share
          </button>
        ) : null}
        <button type="button" class="primary" disabled={!dirty || busy} onClick={() => void save()}>
          {busy ? "Saving…" : "Save"}
        </button>
      </header>
      <div class="tools" role="toolbar" aria-label="Editing">
        <button type="button" onClick={() => newPane("", firstBinding(document))}>
          Add a pane
        </button>
        <button type="button" onClick={() => setOpen({ kind: "datasource", datasource: undefined, then: "pane" })}>
          Add a datasource
        </button>
        <button type="button" onClick={() => setOpen({ kind: "datasources" })}>
          Datasources ({document.datasources.length})
        </button>
        <button type="button" onClick={() => setOpen({ kind: "settings" })}>
          Settings
        </button>
        <button type="button" onClick={() => saveAsFile(document)}>
          Export
        </button>
        {dirty ? (
          <button type="button" class="quiet" onClick={() => void discard()}>
            Discard changes
          </button>
        ) : null}
        <span class="grow" />
        <a class="button" href={`/d/${encodeURIComponent(saved.id)}`}>
          Watch
        </a>
      </div>
      <Fault>{fault}</Fault>
      <p class="hidden" role="status">
        {spoken.value}
      </p>
      <main class="board-main">
        {document.panes.length ? (
          <Grid
            document={document}
            live={live}
            onPanes={(panes, what) => draft.change(what, { ...document, panes })}
            onEdit={(pane) => setOpen({ kind: "pane", pane, isNew: false })}
            onDelete={deletePane}
            say={(text) => (spoken.value = text)}
          />
        ) : (
          <div class="empty">
            <p>This dashboard is empty.</p>
            <p>
              <button type="button" class="primary" onClick={() => setOpen({ kind: "datasource", datasource: undefined, then: "pane" })}>
                Add a datasource
              </button>
            </p>
            <p class="note">A datasource brings values: a device over MQTT, server-sent events, or a WebSocket. A pane shows them.</p>
          </div>
        )}
      </main>
      {open?.kind === "pane" ? (
        <PaneDialog
          key={open.pane.id}
          document={document}
          live={live}
          pane={open.pane}
          isNew={open.isNew}
          onUse={(pane) => usePane(pane, open.isNew)}
          onClose={() => setOpen(undefined)}
          onNewDatasource={() => setOpen({ kind: "datasource", datasource: undefined, then: "pane" })}
        />
      ) : null}
      {open?.kind === "datasource" ? (
        <DatasourceDialog
          dashboardId={saved.id}
          document={document}
          profiles={profiles}
          datasource={open.datasource}
          onUse={(datasource, at) => useDatasource(datasource, at, open.then)}
          onClose={() => setOpen(undefined)}
        />
      ) : null}
      {open?.kind === "datasources" ? (
        <Datasources
          document={document}
          onEdit={(datasource) => setOpen({ kind: "datasource", datasource, then: "list" })}
          onDelete={(datasource) => {
            const datasources = document.datasources.filter(({ id }) => id !== datasource.id);
            draft.change("Datasource deleted", { ...document, datasources });
          }}
          onClose={() => setOpen(undefined)}
        />
      ) : null}
      {open?.kind === "settings" ? (
        <SettingsDialog
          document={document}
          onUse={(next) => {
            draft.change("Settings changed", next);
            setOpen(undefined);
          }}
          onClose={() => setOpen(undefined)}
        />
      ) : null}
      {open?.kind === "share" ? (
        <ShareDialog answer={saved} onChange={(answer) => draft.share(answer)} onClose={() => setOpen(undefined)} />
      ) : null}
      {open?.kind === "conflict" ? (
        <ConflictDialog
          mine={document}
          theirs={open.theirs}
          onOverwrite={() => void save(open.theirs.revision)}
          onTake={() => {
            draft.settle(open.theirs);
            setOpen(undefined);
          }}
          onCopy={() => void saveAsCopy()}
          onClose={() => setOpen(undefined)}
        />
      ) : null}
    </>
  );
}

/** The saved datasources live, bound as the draft is. Begun anew only when what is watched changes. */
function useLive(saved: DashboardAnswer, document: BoardDocument): Live | undefined {
  const [live, setLive] = useState<Live>();
  const drawn = { ...saved.document, panes: document.panes };
  const key = useMemo(() => watchedKey(drawn), [saved, document]);
  useEffect(() => {
    const made = watch(drawn, { url: location.origin, dashboardId: saved.id, login: () => login.value?.token });
    setLive(made);
    return () => made.stop();
  }, [key, saved.id]);
  return live;
}

function Datasources(props: {
  document: BoardDocument;
  onEdit: (datasource: DatasourceEntry | undefined) => void;
  onDelete: (datasource: DatasourceEntry) => void;
  onClose: () => void;
}) {
  const { document, onEdit, onDelete, onClose } = props;
  const uses = (id: string): number =>
    document.panes.filter(({ widgets }) => widgets.some((widget) => boundTo(widget).includes(id))).length;
  return (
    <Dialog
      title="Datasources"
      onClose={onClose}
      footer={
        <button type="button" class="primary" onClick={() => onEdit(undefined)}>
          New datasource
        </button>
      }
    >
      {document.datasources.length ? (
        <table class="list">
          <tbody>
            {document.datasources.map((datasource) => (
              <tr key={datasource.id}>
                <th scope="row">{datasource.title || datasource.id}</th>
                <td>{datasource.type}</td>
                <td class="note">{uses(datasource.id) === 1 ? "one pane" : `${uses(datasource.id)} panes`}</td>
                <td class="n">
                  <button type="button" class="small" onClick={() => onEdit(datasource)}>
                    Edit
                  </button>{" "}
                  <button
                    type="button"
                    class="quiet small"
                    aria-label={`Delete ${datasource.title || datasource.id}`}
                    onClick={() => onDelete(datasource)}
                  >
                    <span aria-hidden="true">✕</span>
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <p class="note">None yet.</p>
      )}
    </Dialog>
  );
}

/** The document as a file, as it is in the editor. */
function saveAsFile(document: BoardDocument): void {
  const link = globalThis.document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(exportDocument(document), null, 2)], { type: "application/json" }));
  link.download = `${freshId(document.title, [], "dashboard")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1_000);
}
