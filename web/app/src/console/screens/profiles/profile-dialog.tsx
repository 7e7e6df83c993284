/** Making and changing a profile: what a change ends is told first, and nothing typed is lost to somebody else's. */

import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";
import { ApiError, call, messageOf } from "../../api.js";
import { confirm } from "../../ui/confirm.js";
import { Dialog } from "../../ui/dialog.js";
import { Fault } from "../../ui/field.js";
import { useKept } from "../../ui/kept.js";
import { toast } from "../../ui/toast.js";
import { lossText, type Loss } from "./losses.js";
import { differing } from "./profiles.js";
import { usesOf, watching } from "./uses.js";

interface Stored {
  id: string;
  name: string;
  revision: number;
}

export interface FormProps<F> {
  fields: F;
  set: <K extends keyof F>(name: K, value: F[K]) => void;
  nameFault: string | undefined;
}

interface Props<F extends object, A extends Stored> {
  /** What it is called, such as "broker profile". */
  what: string;
  /** Of the API, such as `/broker-profiles`. */
  path: string;
  stored: A | undefined;
  fieldsOf: (stored: A | undefined) => F;
  bodyOf: (fields: F, stored: A | undefined) => Record<string, unknown>;
  problemOf: (fields: F, stored: A | undefined) => string | undefined;
  lossesOf: (before: A, fields: F) => Loss[];
  /** How the fields are called that can be compared. */
  names: Partial<Record<keyof F, string>>;
  form: (props: FormProps<F>) => ComponentChildren;
  onDone: () => void;
  onClose: () => void;
}

export function ProfileDialog<F extends object, A extends Stored>(props: Props<F, A>) {
  const { what, path, fieldsOf } = props;
  const formId = useId();
  const [stored, setStored] = useState(props.stored);
  const kept = useKept(`${path}/${props.stored?.id ?? ""}`, fieldsOf(props.stored));
  const [fault, setFault] = useState<string>();
  const [nameFault, setNameFault] = useState<string>();
  const [busy, setBusy] = useState(false);
  /** What somebody else saved meanwhile; null when they deleted it. */
  const [theirs, setTheirs] = useState<A | null>();
  const changed = JSON.stringify(kept.fields) !== JSON.stringify(fieldsOf(stored));

  async function save(over: A | undefined): Promise<void> {
    setFault(undefined);
    setNameFault(undefined);
    const problem = props.problemOf(kept.fields, over);
    if (problem) return setFault(problem);
    setBusy(true);
    try {
      if (over && !(await agreed(over))) return;
      const body = props.bodyOf(kept.fields, over);
      if (over) await call("PUT", `${path}/${encodeURIComponent(over.id)}`, { body, revision: over.revision });
      else await call("POST", path, { body });
      kept.forget();
      toast(over ? `${title()} is changed.` : `${title()} is there now.`);
      props.onDone();
    } catch (error) {
      await refused(error);
    } finally {
      setBusy(false);
    }
  }

  async function agreed(over: A): Promise<boolean> {
    const losses = props.lossesOf(over, kept.fields);
    if (!losses.length) return true;
    const uses = await usesOf(path, over.id);
    const text = lossText(losses, uses, uses.dashboards.length ? await watching(uses) : undefined);
    return !text || confirm({ title: `Change ${over.name}?`, text, action: "Change it", danger: true });
  }

  async function refused(error: unknown): Promise<void> {
    const code = error instanceof ApiError ? error.code : "";
    if (code === "name_taken") return setNameFault("Another one has this name. Choose another name.");
    if (code !== "conflict" && code !== "not_found") return setFault(messageOf(error));
    try {
      const all = await call<A[]>("GET", path);
      setTheirs(all.find(({ id }) => id === props.stored?.id) ?? null);
    } catch (again) {
      setFault(`${messageOf(error)} ${messageOf(again)}`);
    }
  }

  async function close(): Promise<void> {
    const leave =
      !changed ||
      (await confirm({ title: "Leave without saving?", text: "What you typed is thrown away.", action: "Throw it away", danger: true }));
    if (!leave) return;
    kept.forget();
    props.onClose();
  }

  function title(): string {
    return String((kept.fields as { name?: string }).name ?? "").trim();
  }

  function takeTheirs(one: A): void {
    kept.replace(fieldsOf(one));
    setStored(one);
    setTheirs(undefined);
  }

  function keepMine(one: A | undefined): void {
    setStored(one);
    setTheirs(undefined);
    void save(one);
  }

  return (
    <Dialog
      title={stored ? `Change ${stored.name}` : `New ${what}`}
      onClose={() => void close()}
      footer={
        <>
          <button type="button" onClick={() => void close()}>
            Cancel
          </button>
          <button type="submit" form={formId} class="primary" disabled={busy || theirs !== undefined}>
            {busy ? "Saving…" : stored ? "Save" : "Create"}
          </button>
        </>
      }
    >
      <form
        id={formId}
        onSubmit={(event) => {
          event.preventDefault();
          void save(stored);
        }}
      >
        {kept.again && changed ? <p class="note again">What you typed before is here again. It is not saved yet.</p> : null}
        {props.form({ fields: kept.fields, set: kept.set, nameFault })}
        <Fault>{fault}</Fault>
      </form>
      {theirs === undefined ? null : (
        <Conflict
          mine={kept.fields}
          theirs={theirs ? fieldsOf(theirs) : undefined}
          names={props.names}
          onTake={() => (theirs ? takeTheirs(theirs) : void close())}
          onKeep={() => keepMine(theirs ?? undefined)}
          onLook={() => setTheirs(undefined)}
        />
      )}
    </Dialog>
  );
}

function Conflict<F extends object>(props: {
  mine: F;
  theirs: F | undefined;
  names: Partial<Record<keyof F, string>>;
  onTake: () => void;
  onKeep: () => void;
  onLook: () => void;
}) {
  const { mine, theirs, names } = props;
  const differ = theirs ? differing(mine, theirs, names) : [];
  return (
    <Dialog
      title={theirs ? "Somebody else changed it meanwhile" : "Somebody else deleted it meanwhile"}
      onClose={props.onLook}
      footer={
        <>
          <button type="button" onClick={props.onTake}>
            {theirs ? "Take theirs" : "Leave it deleted"}
          </button>
          <button type="button" class="primary" onClick={props.onKeep}>
            {theirs ? "Save mine over theirs" : "Create it again"}
          </button>
        </>
      }
    >
      <p>What you typed is still here. Nothing is saved yet.</p>
      {theirs ? (
        <p class="note">{differ.length ? `Not the same: ${differ.join(", ")}.` : "Both are the same by now, but for a new secret."}</p>
      ) : (
        <p class="note">A profile that is created again is another one. Dashboards that named the old one do not use it.</p>
      )}
    </Dialog>
  );
}
