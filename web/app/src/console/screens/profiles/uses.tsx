/** Which dashboards use a profile, and who is watching them. */

import { useEffect, useState } from "preact/hooks";
import { call } from "../../api.js";
import { href } from "../../router.js";
import { Dialog } from "../../ui/dialog.js";
import type { Uses, Watching } from "./losses.js";

/** Most dashboards that are asked who is watching them. */
const ASKED = 20;
const VISIBILITY = { private: "members only", link: "by link", public: "public" } as const;

interface Viewers {
  connections: number;
  kinds: { member: number; link: number; public: number };
}

export function usesOf(path: string, id: string): Promise<Uses> {
  return call("GET", `${path}/${encodeURIComponent(id)}/uses`);
}

/** How many are watching. Undefined when there are too many dashboards to ask, or one of them did not answer. */
export async function watching({ dashboards, more }: Uses): Promise<Watching | undefined> {
  if (more || dashboards.length > ASKED) return undefined;
  try {
    const all = await Promise.all(
      dashboards.map(({ id }) => call<Viewers>("GET", `/dashboards/${encodeURIComponent(id)}/viewers`)),
    );
    return {
      all: all.reduce((sum, { connections }) => sum + connections, 0),
      guests: all.reduce((sum, { kinds }) => sum + kinds.link + kinds.public, 0),
    };
  } catch {
    return undefined;
  }
}

/** How many dashboards use it, and on demand which. */
export function UseCount(props: {
  path: string;
  id: string;
  name: string;
  /** Names of the broker profiles that use it. */
  brokers?: string[];
  /** The list that it stands in: it is asked again when that was loaded again. */
  loaded: object;
}) {
  const { path, id, name, brokers = [], loaded } = props;
  const [uses, setUses] = useState<Uses | null>();
  const [open, setOpen] = useState(false);
  useEffect(() => {
    usesOf(path, id).then(setUses, () => setUses(null));
  }, [path, id, loaded]);
  if (uses === undefined) return <span class="note">…</span>;
  if (uses === null) return <span class="note">not known</span>;
  const count = uses.dashboards.length;
  if (!count && !brokers.length) return <span class="note">not used</span>;
  const parts = [
    ...(count ? [uses.more ? `more than ${count} dashboards` : count === 1 ? "1 dashboard" : `${count} dashboards`] : []),
    ...(brokers.length ? [brokers.length === 1 ? "1 broker" : `${brokers.length} brokers`] : []),
  ];
  return (
    <>
      <button type="button" class="quiet small" aria-label={`What uses ${name}: ${parts.join(", ")}`} onClick={() => setOpen(true)}>
        {parts.join(", ")}
      </button>
      {open ? (
        <Dialog title={`What uses ${name}`} onClose={() => setOpen(false)}>
          {brokers.length ? (
            <>
              <h3>Broker profiles</h3>
              <ul class="names">
                {brokers.map((broker) => (
                  <li key={broker}>{broker}</li>
                ))}
              </ul>
            </>
          ) : null}
          {count ? (
            <>
              <h3>Dashboards</h3>
              <ul class="names">
                {uses.dashboards.map((one) => (
                  <li key={one.id}>
                    <a href={href("dashboards", one.id, "edit")}>{one.title}</a>{" "}
                    <span class="note">{VISIBILITY[one.visibility]}</span>
                  </li>
                ))}
              </ul>
              {uses.more ? <p class="note">There are more than these.</p> : null}
            </>
          ) : null}
        </Dialog>
      ) : null}
    </>
  );
}
