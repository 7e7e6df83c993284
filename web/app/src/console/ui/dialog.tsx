/** A modal dialog: the browser's own, so that focus and Escape are as people know them. */

import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";

export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  /** Buttons, at the lower edge. */
  footer?: ComponentChildren;
  wide?: boolean;
}) {
  const place = useRef<HTMLDialogElement>(null);
  const id = useId();
  // At once, so that a key that is pressed right after finds it open.
  useLayoutEffect(() => {
    place.current?.showModal();
  }, []);
  return (
    <dialog
      ref={place}
      class={props.wide ? "wide" : ""}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        props.onClose();
      }}
      onClose={() => {
        // A browser closes a dialog whatever it says, when Escape is pressed again without a click in between.
        if (place.current && !place.current.open) place.current.showModal();
        props.onClose();
      }}
    >
      <header>
        <h2 id={id}>{props.title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick={props.onClose}>
          <span aria-hidden="true">✕</span>
        </button>
      </header>
      <div class="content">{props.children}</div>
      {props.footer ? <footer>{props.footer}</footer> : null}
    </dialog>
  );
}
