/** A list of short texts: one field for each, in the order that they have. */

import { useId, useRef } from "preact/hooks";

export function ListField(props: {
  label: string;
  /** What one entry is called, such as "topic filter". */
  one: string;
  values: readonly string[];
  onChange: (values: string[]) => void;
  placeholder?: string;
  hint?: string;
}) {
  const { label, one, values, onChange, placeholder, hint } = props;
  const id = useId();
  const place = useRef<HTMLFieldSetElement>(null);

  /** Moves on to a field, after it is there. */
  function focus(index: number): void {
    requestAnimationFrame(() => place.current?.querySelectorAll("input")[index]?.focus());
  }

  function add(): void {
    onChange([...values, ""]);
    focus(values.length);
  }

  function remove(index: number): void {
    onChange(values.filter((_, at) => at !== index));
    focus(Math.max(0, index - 1));
  }

  /** Many that are pasted at once become one entry for each line. */
  function paste(event: ClipboardEvent, index: number): void {
    const lines = (event.clipboardData?.getData("text") ?? "").split(/\r?\n/).map((line) => line.trim());
    const found = lines.filter(Boolean);
    if (found.length < 2) return;
    event.preventDefault();
    onChange([...values.slice(0, index), ...(values[index] ? [values[index]] : []), ...found, ...values.slice(index + 1)]);
  }

  return (
    <fieldset ref={place} aria-describedby={hint ? `${id}-hint` : undefined}>
      <legend>{label}</legend>
      {values.map((value, index) => (
        <div class="row entry" key={index}>
          <input
            class="mono"
            value={value}
            autocomplete="off"
            aria-label={`${one} ${index + 1}`}
            placeholder={placeholder}
            onInput={(event) => onChange(values.map((old, at) => (at === index ? event.currentTarget.value : old)))}
            onPaste={(event) => paste(event, index)}
            onKeyDown={(event) => {
              if (event.key !== "Enter") return;
              event.preventDefault();
              add();
            }}
          />
          <button type="button" class="quiet small" aria-label={`Remove ${one} ${index + 1}`} onClick={() => remove(index)}>
            Remove
          </button>
        </div>
      ))}
      <button type="button" class="small" onClick={add}>
        Add a {one}
      </button>
      {hint ? (
        <p id={`${id}-hint`} class="hint">
          {hint}
        </p>
      ) : null}
    </fieldset>
  );
}
