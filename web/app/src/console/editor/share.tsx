/** Who may see a dashboard: its visibility, its link, and its members. */

import { useEffect, useState } from "preact/hooks";
import type { DashboardAnswer } from "../../board/document.js";
import { call, messageOf } from "../api.js";
import { confirm } from "../ui/confirm.js";
import { Dialog } from "../ui/dialog.js";
import { Choice, Fault, Field } from "../ui/field.js";
import { toast } from "../ui/toast.js";

type Visibility = DashboardAnswer["visibility"];
type Level = "viewer" | "editor" | "manager";

/** What keeps viewers without a login from a datasource. */
interface PublicCheck {
  blockers: { datasourceId: string; title: string; code: string; message: string }[];
}

/** Who is watching now. */
interface Viewers {
  connections: number;
  subscriptions: number;
  kinds: { member: number; link: number; public: number };
  datasources: { datasourceId: string; subscriptions: number }[];
  /** Whether there are more than were counted. */
  more: boolean;
}

const LEVELS: readonly (readonly [Level, string])[] = [
  ["viewer", "may watch"],
  ["editor", "may edit"],
  ["manager", "may edit and share"],
];
const VISIBILITIES: readonly (readonly [Visibility, string, string])[] = [
  ["private", "Members only", "Who is listed below, after signing in."],
  ["link", "Everybody with the link", "Nobody has to sign in. A new link cuts who has the old one."],
  ["public", "Everybody", "At an address that does not change."],
];

export function ShareDialog(props: { answer: DashboardAnswer; onChange: (answer: DashboardAnswer) => void; onClose: () => void }) {
  const { answer, onChange, onClose } = props;
  const path = `/dashboards/${encodeURIComponent(answer.id)}`;
  const [check, setCheck] = useState<PublicCheck>();
  const [viewers, setViewers] = useState<Viewers>();
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    call<PublicCheck>("POST", `${path}/public-check`).then(setCheck, () => undefined);
    call<Viewers>("GET", `${path}/viewers`).then(setViewers, () => undefined);
  }, [path, answer.visibility]);

  async function act(method: string, at: string, body?: unknown, done?: string): Promise<boolean> {
    setBusy(true);
    setFault(undefined);
    try {
      onChange(await call<DashboardAnswer>(method, path + at, { body }));
      if (done) toast(done);
      return true;
    } catch (error) {
      setFault(messageOf(error));
      return false;
    } finally {
      setBusy(false);
    }
  }

  const outside = (viewers?.kinds.link ?? 0) + (viewers?.kinds.public ?? 0);
  const cut = outside === 0 ? "Nobody without a login is watching now." : `${viewers?.more ? "More than " : ""}${people(outside)} who watch without a login are cut within a second.`;

  async function setVisibility(visibility: Visibility): Promise<void> {
    if (visibility === answer.visibility) return;
    const fewer = answer.visibility !== "private";
    const agreed =
      !fewer ||
      (await confirm({
        title: "Change who may see it?",
        text: `The link that is in use now ends. ${cut}`,
        action: "Change it",
        danger: visibility === "private",
      }));
    if (agreed) await act("PUT", "/visibility", { visibility });
  }

  async function rotate(): Promise<void> {
    const agreed = await confirm({
      title: "Replace the link?",
      text: `The link that you gave away stops working. ${cut}`,
      action: "Replace the link",
      danger: true,
    });
    if (agreed) await act("POST", "/share-token:rotate", undefined, "The link is new. The old one does not work any longer.");
  }

  const address =
    answer.visibility === "link"
      ? `${location.origin}/s/${encodeURIComponent(answer.shareToken ?? "")}`
      : answer.visibility === "public"
        ? `${location.origin}/p/${encodeURIComponent(answer.id)}`
        : undefined;
  return (
    <Dialog title={`Share: ${answer.title}`} onClose={onClose}>
      <Fault>{fault}</Fault>
      <fieldset class="cards" disabled={busy}>
        <legend>Who may see it</legend>
        {VISIBILITIES.map(([visibility, title, text]) => (
          <label key={visibility} class="card">
            <input
              type="radio"
              name="visibility"
              checked={answer.visibility === visibility}
              onClick={(event) => {
                event.preventDefault();
                void setVisibility(visibility);
              }}
            />
            <span>
              <b>{title}</b>
              <span class="note">{text}</span>
            </span>
          </label>
        ))}
      </fieldset>
      {address ? (
        <div class="address">
          <Field label="Address to give away" mono value={address} onInput={() => undefined} />
          <div class="row">
            <button type="button" onClick={() => void copy(address)}>
              Copy
            </button>
            <a class="button" href={address} target="_blank" rel="noreferrer">
              Open
            </a>
            <span class="grow" />
            {answer.visibility === "link" ? (
              <button type="button" class="danger" disabled={busy} onClick={() => void rotate()}>
                Replace the link
              </button>
            ) : null}
          </div>
        </div>
      ) : null}
      {viewers ? (
        <p class="note" data-viewers={viewers.connections}>
          {viewers.connections === 0 ? "Nobody is watching now." : `Watching now: ${viewers.more ? "more than " : ""}${people(viewers.connections)}.`}
        </p>
      ) : null}
      {check?.blockers.length ? (
        <div class="blockers">
          <p class="state warn">
            <span aria-hidden="true">▲</span> Without a login these are not shown:
          </p>
          <ul>
            {check.blockers.map(({ datasourceId, title, message }) => (
              <li key={datasourceId}>
                <b>{title || datasourceId}</b>: {message}
              </li>
            ))}
          </ul>
        </div>
      ) : null}
      <Members answer={answer} busy={busy} act={act} />
    </Dialog>
  );
}

function people(count: number): string {
  return count === 1 ? "one viewer" : `${count} viewers`;
}

async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast("The address is copied.");
  } catch {
    toast("It could not be copied. Select the address and copy it.");
  }
}

function Members(props: {
  answer: DashboardAnswer;
  busy: boolean;
  act: (method: string, path: string, body?: unknown, done?: string) => Promise<boolean>;
}) {
  const { answer, busy, act } = props;
  const [email, setEmail] = useState("");
  const [level, setLevel] = useState<Level>("viewer");

  async function add(event: Event): Promise<void> {
    event.preventDefault();
    if (await act("PUT", "/acl", { email, level }, `${email} ${LEVELS.find(([one]) => one === level)?.[1]} it now.`)) setEmail("");
  }

  async function remove(userId: string, name: string): Promise<void> {
    const agreed = await confirm({
      title: "Take the right away?",
      text: `What ${name} watches of this dashboard ends within a second, unless they may see it in another way.`,
      action: "Take it away",
      danger: true,
    });
    if (agreed) await act("DELETE", `/acl/${encodeURIComponent(userId)}`);
  }

  return (
    <section>
      <h3>Members</h3>
      {answer.acl?.length ? (
        <table class="list">
          <tbody>
            {answer.acl.map(({ userId, email: own, level: now }) => (
              <tr key={userId}>
                <th scope="row">{own ?? userId}</th>
                <td>
                  {own ? (
                    <select
                      aria-label={`Right of ${own}`}
                      value={now}
                      disabled={busy}
                      onChange={(event) => void act("PUT", "/acl", { email: own, level: event.currentTarget.value })}
                    >
                      {LEVELS.map(([value, text]) => (
                        <option key={value} value={value}>
                          {text}
                        </option>
                      ))}
                    </select>
                  ) : (
                    LEVELS.find(([value]) => value === now)?.[1]
                  )}
                </td>
                <td class="n">
                  <button type="button" class="quiet small" disabled={busy} onClick={() => void remove(userId, own ?? userId)}>
                    Remove
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <p class="note">Nobody but its owner and administrators.</p>
      )}
      <form class="columns" onSubmit={(event) => void add(event)}>
        <Field label="E-mail" type="email" value={email} onInput={setEmail} placeholder="name@example.com" required />
        <Choice label="Right" value={level} choices={LEVELS} onChange={setLevel} />
        <button type="submit" disabled={busy || !email}>
          Add
        </button>
      </form>
    </section>
  );
}
