/** One's own account: the password, and the other sign-ins. */

import { call, login, messageOf, setLogin } from "../api.js";
import { confirm } from "../ui/confirm.js";
import { toast } from "../ui/toast.js";
import { ChangePassword } from "./password.js";

const ROLES = { admin: "administrator", editor: "editor", viewer: "viewer" } as const;

export function Account() {
  const user = login.value?.user;
  if (!user) return null;

  async function everywhere(): Promise<void> {
    const agreed = await confirm({
      title: "Sign out everywhere?",
      text: "Every sign-in of yours ends, this one too, and what you watch with them.",
      action: "Sign out everywhere",
      danger: true,
    });
    if (!agreed) return;
    try {
      await call("POST", "/auth/logout-everywhere");
      setLogin(undefined);
    } catch (error) {
      toast(messageOf(error));
    }
  }

  return (
    <div class="form">
      <h2>Your account</h2>
      <p class="note">
        {user.email}, {ROLES[user.role]}
      </p>
      <h3>Password</h3>
      <ChangePassword />
      <h3>Sign-ins</h3>
      <p>
        <button type="button" class="danger" onClick={() => void everywhere()}>
          Sign out everywhere
        </button>
      </p>
    </div>
  );
}
