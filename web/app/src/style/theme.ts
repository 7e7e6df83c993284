/** Dark and light. Without a wish it is as the person's device prefers. */

/** Which of the two is shown. Reading it costs no style. */
export function shownTheme(): string {
  return document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
}

export function applyTheme(theme: string | null | undefined): void {
  const root = document.documentElement;
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  else delete root.dataset.theme;
}
