/** Sign in with e-mail and password. */

import { useState } from "preact/hooks";
import { messageOf, signIn } from "../api.js";
import { Fault, Field } from "../ui/field.js";

export function SignIn() {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [fault, setFault] = useState<string>();
  const [busy, setBusy] = useState(false);

  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setFault(undefined);
    try {
      await signIn(email, password);
    } catch (error) {
      setFault(messageOf(error));
    } finally {
      setBusy(false);
    }
  }

  return (
    <main class="narrow">
      <h1>
        <img src="/icon.svg" width="28" height="28" alt="" /> Tidegate
      </h1>
      <form onSubmit={(event) => void submit(event)}>
        <Field label="E-mail" type="email" value={email} onInput={setEmail} autocomplete="username" required />
        <Field
          label="Password"
          type="password"
          value={password}
          onInput={setPassword}
          autocomplete="current-password"
          required
        />
        <Fault>{fault}</Fault>
        <button type="submit" class="primary wide" disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
      </form>
      <p class="note">No account, or the password is lost? An administrator gives you a one-time password.</p>
    </main>
  );
}
