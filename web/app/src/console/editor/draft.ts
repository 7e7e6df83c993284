/** The document while it is edited: undo, and a draft in this browser, so that nothing is lost. */

import { computed, signal } from "@preact/signals";
import { panesOf, type BoardDocument, type DashboardAnswer } from "../../board/document.js";

const MOST_STEPS = 50;
const KEY = "tidegate.draft.";

interface Step {
  document: BoardDocument;
  /** What was done, such as "Pane moved". */
  what: string;
}

interface Kept {
  revision: number;
  document: BoardDocument;
  at: number;
}

export class Draft {
  readonly document;
  /** What is saved at the server, as far as is known here. */
  readonly saved;
  readonly dirty = computed(() => JSON.stringify(this.document.value) !== JSON.stringify(this.saved.value.document));
  readonly undone = signal<Step[]>([]);
  readonly done = signal<Step[]>([]);
  /** A draft of an earlier visit was taken up. */
  readonly restored: boolean;
  /** The revision that this draft was begun from. */
  revision: number;

  constructor(answer: DashboardAnswer) {
    const saved = { ...answer, document: drawable(answer.document) };
    const kept = read(answer.id);
    this.saved = signal(saved);
    this.restored = kept !== undefined && JSON.stringify(kept.document) !== JSON.stringify(saved.document);
    this.document = signal(kept?.document ?? saved.document);
    this.revision = kept?.revision ?? answer.revision;
  }

  /** Changes the document. It can be taken back. */
  change(what: string, document: BoardDocument): void {
    if (JSON.stringify(document) === JSON.stringify(this.document.value)) return;
    this.done.value = [...this.done.value, { document: this.document.value, what }].slice(-MOST_STEPS);
    this.undone.value = [];
    this.#take(document);
  }

  undo(): string | undefined {
    const step = this.done.value.at(-1);
    if (!step) return undefined;
    this.done.value = this.done.value.slice(0, -1);
    this.undone.value = [...this.undone.value, { ...step, document: this.document.value }];
    this.#take(step.document);
    return step.what;
  }

  redo(): string | undefined {
    const step = this.undone.value.at(-1);
    if (!step) return undefined;
    this.undone.value = this.undone.value.slice(0, -1);
    this.done.value = [...this.done.value, { ...step, document: this.document.value }];
    this.#take(step.document);
    return step.what;
  }

  /** It was saved, or another document was taken from the server. */
  settle(answer: DashboardAnswer): void {
    const saved = { ...answer, document: drawable(answer.document) };
    this.saved.value = saved;
    this.revision = answer.revision;
    this.document.value = saved.document;
    forget(answer.id);
  }

  /** Only rights or the link changed. */
  share(answer: DashboardAnswer): void {
    this.saved.value = { ...this.saved.value, ...answer, document: this.saved.value.document, revision: this.saved.value.revision };
  }

  #take(document: BoardDocument): void {
    this.document.value = document;
    const { id } = this.saved.value;
    if (JSON.stringify(document) === JSON.stringify(this.saved.value.document)) forget(id);
    else keep(id, { revision: this.revision, document, at: Date.now() });
  }
}

/** A document whose panes all have an id and a place. */
function drawable(document: BoardDocument): BoardDocument {
  return { ...document, settings: document.settings ?? {}, datasources: document.datasources ?? [], panes: placed(document) };
}

function placed(document: BoardDocument): BoardDocument["panes"] {
  const drawn = panesOf(document);
  // `panesOf` leaves out widgets that are switched off. An editor keeps them.
  return drawn.map((pane, index) => ({ ...pane, widgets: document.panes[index]?.widgets ?? [] }));
}

function read(id: string): Kept | undefined {
  try {
    return (JSON.parse(localStorage.getItem(KEY + id) ?? "null") as Kept | null) ?? undefined;
  } catch {
    return undefined;
  }
}

function keep(id: string, kept: Kept): void {
  try {
    localStorage.setItem(KEY + id, JSON.stringify(kept));
  } catch {
    // A browser that keeps nothing still has the draft until the page is left.
  }
}

export function forget(id: string): void {
  localStorage.removeItem(KEY + id);
}

/** An id that the document does not have yet, from a title: `boiler-2`. */
export function freshId(title: string, taken: readonly string[], fallback: string): string {
  const base =
    title
      .toLowerCase()
      .normalize("NFKD")
      .replace(/[^a-z0-9]+/g, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, 60) || fallback;
  let id = base;
  for (let number = 2; taken.includes(id); number++) id = `${base}-${number}`;
  return id;
}
