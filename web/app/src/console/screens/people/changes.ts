/** What a change of a person's account ends, in sentences. It is told before the change is made. */

export type Role = "admin" | "editor" | "viewer";

export interface Person {
  id: string;
  email: string;
  role: Role;
  active: boolean;
  mustChangePassword: boolean;
}

/** How many dashboards a person owns. `more`: there may be others, that were not looked at. */
export interface Owned {
  all: number;
  /** Shown without a login. */
  open: number;
  more: boolean;
}

export const ROLES: readonly (readonly [Role, string, string])[] = [
  ["viewer", "Viewer", "watches what was shared"],
  ["editor", "Editor", "makes dashboards and uses profiles"],
  ["admin", "Administrator", "may do everything"],
];

const SIGNED_OUT = "is signed out everywhere within a second, and what they watch ends";

export function roleText({ email, role, active }: Person, wanted: Role): string {
  const may = {
    admin: `${email} may see and change everything from then on: every dashboard, profiles, people.`,
    editor: `${email} may make dashboards, and use all profiles in them.`,
    viewer: `${email} may watch what was shared, and no longer make dashboards. What they own stays theirs.`,
  }[wanted];
  if (role !== "admin" || !active) return `${may} Nothing that they watch ends.`;
  return `${email} ${SIGNED_OUT}. They can sign in again at once. ${may}`;
}

export function activeText({ email }: Person, active: boolean, owned: Owned | undefined): string {
  if (active) return `${email} may sign in again. What their dashboards showed by link or to everybody comes back.`;
  return `${email} ${SIGNED_OUT}. ${ownedText(owned)}`;
}

export function resetText({ email }: Person): string {
  return `${email} ${SIGNED_OUT}. They sign in with a one-time password, which you are shown once, and choose another one.`;
}

function ownedText(owned: Owned | undefined): string {
  if (!owned) return "What their dashboards show by link or to everybody ends too. How many that are could not be checked.";
  const { all, open, more } = owned;
  if (!all) return more ? "They may own dashboards: those are not shown without a login any longer." : "They own no dashboard.";
  const own = `They own ${more ? "at least " : ""}${all === 1 ? "one dashboard" : `${all} dashboards`}`;
  if (!open) return more ? `${own}. What is shown of them without a login ends.` : `${own}, none of them shown without a login.`;
  const shown = open === all ? "what is shown of it without a login ends" : `${open} of them ${open === 1 ? "is" : "are"} shown without a login, and that ends`;
  return `${own}: ${all > 1 && open === all ? "what is shown of them without a login ends" : shown}. Members keep ${all === 1 ? "it" : "them"}. An administrator can give ${all === 1 ? "it" : "them"} another owner.`;
}
