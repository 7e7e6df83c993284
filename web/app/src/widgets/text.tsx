/** Words that the editor wrote. Plain text: nothing in it is markup. */

import type { WidgetProps } from "./widget.js";

export function TextWidget({ settings }: WidgetProps) {
  return <p class="words">{typeof settings.text === "string" ? settings.text : ""}</p>;
}
