/** A text that is shown to be taken along: in full, selected by a click, with a button that copies it. */

import { useState } from "preact/hooks";

export function CopyText({ label, text }: { label: string; text: string }) {
  const [said, setSaid] = useState("");

  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied.");
    } catch {
      setSaid("It could not be copied. Select it and copy it.");
    }
  }

  return (
    <>
      <div class="row">
        <input class="mono" readOnly aria-label={label} value={text} onFocus={(event) => event.currentTarget.select()} />
        <button type="button" onClick={() => void copy()}>
          Copy
        </button>
      </div>
      <p class="hint" role="status">
        {said}
      </p>
    </>
  );
}
