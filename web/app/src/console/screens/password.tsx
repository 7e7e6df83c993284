/** Change one's own password: of one's own will, or because the one-time password has to be replaced first. */

import { useState } from "preact/hooks";
import { call, login, messageOf, setLogin, signIn, signOut } from "../api.js";
import { Fault, Field } from "../ui/field.js";
import { toast } from "../ui/toast.js";

export function ChangePassword({ forced }: { forced?: boolean }) {
  return forced ? (
    <main class="narrow">
      <h1>Choose a password</h1>
      <p class="note">You signed in with a one-time password. Choose one of your own to go on.</p>
      <PasswordForm forced />
      <p>
        <button type="button" class="quiet" onClick={() => void signOut()}>
          Sign out
        </button>
      </p>
    </main>
  ) : (
    <PasswordForm />
  );
}

function PasswordForm({ forced }: { forced?: boolean }) {
  const [current, setCurrent] = useState("");
  const [wanted, setWanted] = useState("");
  const [again, setAgain] = useState("");
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);

  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    const email = login.value?.user.email;
    if (!email) return;
    if (wanted !== again) return setFault("The two new passwords are not the same.");
    setBusy(true);
    setFault(undefined);
    try {
      await call("POST", "/users/me/password", { body: { currentPassword: current, newPassword: wanted } });
    } catch (error) {
      setFault(messageOf(error));
      return setBusy(false);
    }
    // Every login ends with the old password, this one too.
    try {
      await signIn(email, wanted);
      toast("The password is changed. Other sign-ins of yours have ended.");
    } catch {
      setLogin(undefined);
    }
    setBusy(false);
    setCurrent("");
    setWanted("");
    setAgain("");
  }

  return (
    <form onSubmit={(event) => void submit(event)}>
      <input type="email" class="hidden" autocomplete="username" value={login.value?.user.email} readOnly tabIndex={-1} aria-hidden="true" />
      <Field
        label={forced ? "One-time password" : "Current password"}
        type="password"
        value={current}
        onInput={setCurrent}
        autocomplete="current-password"
        required
      />
      <Field
        label="New password"
        type="password"
        value={wanted}
        onInput={setWanted}
        autocomplete="new-password"
        hint="12 characters or more, of any kind."
        required
      />
      <Field label="New password, again" type="password" value={again} onInput={setAgain} autocomplete="new-password" required />
      <Fault>{fault}</Fault>
      <button type="submit" class="primary" disabled={busy}>
        {busy ? "Changing…" : "Change password"}
      </button>
    </form>
  );
}
