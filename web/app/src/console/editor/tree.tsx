/** A payload as a tree. A click on a value makes its path. */

import { writePath } from "../../widgets/path.js";

const MOST_ENTRIES = 200;

export function Tree({ value, chosen, onChoose }: { value: unknown; chosen: string; onChoose: (path: string) => void }) {
  return (
    <div class="tree" role="group" aria-label="Values of the message">
      <Node value={value} steps={[]} chosen={chosen} onChoose={onChoose} />
    </div>
  );
}

interface NodeProps {
  value: unknown;
  steps: (string | number)[];
  chosen: string;
  onChoose: (path: string) => void;
}

function Node({ value, steps, chosen, onChoose }: NodeProps) {
  if (typeof value !== "object" || value === null) {
    const path = writePath(steps);
    return (
      <button
        type="button"
        class={`leaf ${path === chosen ? "chosen" : ""}`}
        aria-pressed={path === chosen}
        title={path || "the payload itself"}
        onClick={() => onChoose(path)}
      >
        {JSON.stringify(value)}
      </button>
    );
  }
  const list = Array.isArray(value);
  const entries = list ? value.map((one, index) => [index, one] as const) : Object.entries(value);
  return (
    <>
      {list ? "[" : "{"}
      <div class="inner">
        {entries.slice(0, MOST_ENTRIES).map(([key, inner]) => (
          <div key={key}>
            <span class="k">{list ? `${key}:` : `"${key}":`}</span>{" "}
            <Node value={inner} steps={[...steps, key]} chosen={chosen} onChoose={onChoose} />
          </div>
        ))}
        {entries.length > MOST_ENTRIES ? <div class="k">… {entries.length - MOST_ENTRIES} more</div> : null}
      </div>
      {list ? "]" : "}"}
    </>
  );
}
