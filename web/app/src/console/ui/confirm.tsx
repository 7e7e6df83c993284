/** Asking before something that cannot be taken back. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Dialog } from "./dialog.js";

interface Question {
  title: string;
  text: ComponentChildren;
  /** What the button says, such as "Rotate the link". */
  action: string;
  danger?: boolean;
  answer: (yes: boolean) => void;
}

const asked = signal<Question | undefined>(undefined);

/** Whether the person agrees. */
export function confirm(question: Omit<Question, "answer">): Promise<boolean> {
  return new Promise((resolve) => {
    asked.value = { ...question, answer: resolve };
  });
}

export function Confirmations() {
  const question = asked.value;
  if (!question) return null;
  const close = (yes: boolean): void => {
    asked.value = undefined;
    question.answer(yes);
  };
  return (
    <Dialog
      title={question.title}
      onClose={() => close(false)}
      footer={
        <>
          <button type="button" onClick={() => close(false)}>
            Cancel
          </button>
          <button type="button" class={question.danger ? "danger solid" : "primary"} onClick={() => close(true)}>
            {question.action}
          </button>
        </>
      }
    >
      <p>{question.text}</p>
    </Dialog>
  );
}
