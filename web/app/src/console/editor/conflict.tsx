/** Somebody else saved first. Nothing is lost: the person says what becomes of both. */

import type { BoardDocument, DashboardAnswer } from "../../board/document.js";
import { Dialog } from "../ui/dialog.js";

interface Props {
  mine: BoardDocument;
  theirs: DashboardAnswer;
  onOverwrite: () => void;
  onTake: () => void;
  onCopy: () => void;
  onClose: () => void;
}

/** What differs, by the names that people see. */
export function differences(mine: BoardDocument, theirs: BoardDocument): string[] {
  const found: string[] = [];
  if (mine.title !== theirs.title) found.push(`the title: “${theirs.title}” there, “${mine.title}” here`);
  compare("pane", mine.panes, theirs.panes, found);
  compare("datasource", mine.datasources, theirs.datasources, found);
  if (JSON.stringify(mine.settings) !== JSON.stringify(theirs.settings)) found.push("the settings of the dashboard");
  return found;
}

function compare(
  what: string,
  mine: readonly { id: string; title?: string }[],
  theirs: readonly { id: string; title?: string }[],
  found: string[],
): void {
  const there = new Map(theirs.map((one) => [one.id, one]));
  const here = new Set(mine.map(({ id }) => id));
  for (const one of mine) {
    const other = there.get(one.id);
    const name = `${what} “${one.title || one.id}”`;
    if (!other) found.push(`${name}: only here`);
    else if (JSON.stringify(one) !== JSON.stringify(other)) found.push(`${name}: not the same`);
  }
  for (const one of theirs) if (!here.has(one.id)) found.push(`${what} “${one.title || one.id}”: only there`);
}

export function ConflictDialog({ mine, theirs, onOverwrite, onTake, onCopy, onClose }: Props) {
  const all = differences(mine, theirs.document);
  return (
    <Dialog
      title="Somebody else saved this dashboard meanwhile"
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onTake}>
            Take theirs
          </button>
          <button type="button" onClick={onCopy}>
            Keep mine as a new dashboard
          </button>
          <button type="button" class="primary" onClick={onOverwrite}>
            Save mine over theirs
          </button>
        </>
      }
    >
      <p>Nothing is lost yet. Your changes are kept in this browser until you decide.</p>
      {all.length ? (
        <>
          <p class="note">What differs:</p>
          <ul class="differences">
            {all.slice(0, 12).map((one) => (
              <li key={one}>{one}</li>
            ))}
            {all.length > 12 ? <li>and {all.length - 12} more</li> : null}
          </ul>
        </>
      ) : (
        <p class="note">Both are the same by now. You can take theirs.</p>
      )}
    </Dialog>
  );
}

