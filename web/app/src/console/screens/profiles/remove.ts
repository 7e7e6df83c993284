/** Deleting a profile, after saying what that ends. */

import { call, messageOf } from "../../api.js";
import { confirm } from "../../ui/confirm.js";
import { toast } from "../../ui/toast.js";
import { lossText } from "./losses.js";
import { usesOf, watching } from "./uses.js";

/** Whether it was deleted. */
export async function remove(path: string, profile: { id: string; name: string }, brokers: readonly string[] = []): Promise<boolean> {
  try {
    const uses = await usesOf(path, profile.id);
    const ends = lossText(["deleted"], uses, uses.dashboards.length ? await watching(uses) : undefined);
    const named = brokers.length ? `These broker profiles connect without it from then on: ${brokers.join(", ")}. ` : "";
    const text = `${named}${ends ?? (named ? "" : "Nothing uses it. ")} It cannot be brought back.`.replace(/ {2,}/g, " ");
    if (!(await confirm({ title: `Delete ${profile.name}?`, text, action: "Delete it", danger: true }))) return false;
    await call("DELETE", `${path}/${encodeURIComponent(profile.id)}`);
    toast(`${profile.name} is deleted.`);
    return true;
  } catch (error) {
    toast(messageOf(error));
    return false;
  }
}
