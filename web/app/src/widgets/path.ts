/** Paths into a payload: `a.b[0]["c"][*]`. Own properties only, and no code. */

/** Every element of a list, or every value of an object. */
export const ALL = Symbol("[*]");
export type Step = string | number | typeof ALL;

/** One step: a name, a place in a list, a quoted name, or all. A name after the first has a dot before it. */
const STEP = /(\.?)([^.[\]"\s]+)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]|\[\*\]/y;
/** So many values a path with `[*]` brings at most. */
const MOST = 1_000;

/** The steps of a path; null when it is none. An empty path has no steps: it is the payload itself. */
export function parsePath(path: string): Step[] | null {
  const text = path.trim();
  const steps: Step[] = [];
  STEP.lastIndex = 0;
  while (STEP.lastIndex < text.length) {
    const first = STEP.lastIndex === 0;
    const found = STEP.exec(text);
    if (!found) return null;
    const [, dot, name, index, quoted] = found;
    if (name !== undefined) {
      if (first === (dot === ".")) return null;
      steps.push(name);
    } else if (index !== undefined) steps.push(Number(index));
    else if (quoted !== undefined) {
      try {
        steps.push(JSON.parse(quoted) as string);
      } catch {
        return null;
      }
    } else steps.push(ALL);
  }
  return steps;
}

/** What is at the end of the steps; undefined when there is nothing. With `[*]` it is the list of all that is there. */
export function readPath(value: unknown, steps: readonly Step[]): unknown {
  let here: unknown[] = [value];
  for (const step of steps) {
    const next: unknown[] = [];
    for (const one of here) {
      if (typeof one !== "object" || one === null) continue;
      if (step === ALL) next.push(...Object.values(one).slice(0, MOST - next.length));
      else if (Object.hasOwn(one, step)) next.push((one as Record<string | number, unknown>)[step]);
    }
    here = next;
  }
  return steps.includes(ALL) ? here : here[0];
}

/** The path that leads to a place, as people would write it. */
export function writePath(steps: readonly (string | number)[]): string {
  return steps
    .map((step, index) => {
      if (typeof step === "number") return `[${step}]`;
      if (!/^[A-Za-z_$][\w$-]*$/.test(step)) return `[${JSON.stringify(step)}]`;
      return index ? `.${step}` : step;
    })
    .join("");
}
