/** Form fields with their label, hint and fault. */

import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

interface Common {
  label: string;
  hint?: ComponentChildren;
  fault?: string | undefined;
}

export function Field(
  props: Common & {
    value: string;
    onInput: (value: string) => void;
    type?: "text" | "email" | "password" | "number" | "search" | "url" | "datetime-local";
    placeholder?: string;
    required?: boolean;
    autocomplete?: string;
    mono?: boolean;
    rows?: number;
    min?: number;
    max?: number;
    disabled?: boolean;
    list?: readonly string[];
  },
) {
  const id = useId();
  const hint = useHint(id, props);
  const shared = {
    id,
    value: props.value,
    placeholder: props.placeholder,
    required: props.required,
    disabled: props.disabled,
    class: props.mono ? "mono" : "",
    "aria-describedby": hint.id,
    "aria-invalid": props.fault ? (true as const) : undefined,
  };
  const own = {
    ...shared,
    type: props.type ?? "text",
    autocomplete: props.autocomplete ?? "off",
    min: props.min,
    max: props.max,
    step: "any",
    list: props.list ? `${id}-list` : undefined,
    onInput: (event: Event) => props.onInput((event.currentTarget as HTMLInputElement).value),
  };
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.rows ? (
        <textarea {...shared} rows={props.rows} onInput={(event) => props.onInput(event.currentTarget.value)} />
      ) : (
        // The types of a field differ by its type, which is known only here.
        <input {...(own as object)} />
      )}
      {props.list ? (
        <datalist id={`${id}-list`}>
          {props.list.map((one) => (
            <option key={one} value={one} />
          ))}
        </datalist>
      ) : null}
      {hint.view}
    </div>
  );
}

export function Choice<T extends string>(
  props: Common & { value: T; onChange: (value: T) => void; choices: readonly (readonly [T, string])[]; disabled?: boolean },
) {
  const id = useId();
  const hint = useHint(id, props);
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      <select
        id={id}
        value={props.value}
        disabled={props.disabled}
        aria-describedby={hint.id}
        onChange={(event) => props.onChange(event.currentTarget.value as T)}
      >
        {props.choices.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
      {hint.view}
    </div>
  );
}

export function Check(props: Common & { value: boolean; onChange: (value: boolean) => void }) {
  const id = useId();
  const hint = useHint(id, props);
  return (
    <div class="field check">
      <input
        id={id}
        type="checkbox"
        checked={props.value}
        aria-describedby={hint.id}
        onChange={(event) => props.onChange(event.currentTarget.checked)}
      />
      <label for={id}>{props.label}</label>
      {hint.view}
    </div>
  );
}

function useHint(id: string, { hint, fault }: Common): { id: string | undefined; view: ComponentChildren } {
  if (fault) {
    return {
      id: `${id}-hint`,
      view: (
        <p id={`${id}-hint`} class="hint critical">
          <span aria-hidden="true">■</span> {fault}
        </p>
      ),
    };
  }
  if (!hint) return { id: undefined, view: null };
  return {
    id: `${id}-hint`,
    view: (
      <p id={`${id}-hint`} class="hint">
        {hint}
      </p>
    ),
  };
}

/** What went wrong with a whole form. */
export function Fault({ children }: { children: ComponentChildren }) {
  return children ? (
    <p class="fault" role="alert">
      <span aria-hidden="true">■</span> {children}
    </p>
  ) : null;
}
