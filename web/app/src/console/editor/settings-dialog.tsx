/** What holds for the whole dashboard: its title, its look, its time zone. And its datasources. */

import { useState } from "preact/hooks";
import type { BoardDocument } from "../../board/document.js";
import { Dialog } from "../ui/dialog.js";
import { Check, Choice, Field } from "../ui/field.js";

const ZONES = ["browser", "UTC", ...Intl.supportedValuesOf("timeZone")];

export function SettingsDialog(props: { document: BoardDocument; onUse: (document: BoardDocument) => void; onClose: () => void }) {
  const { document, onUse, onClose } = props;
  const { settings } = document;
  const [title, setTitle] = useState(document.title);
  const [width, setWidth] = useState(document.width ?? "md");
  const [columns, setColumns] = useState(String(document.columns));
  const [theme, setTheme] = useState<"auto" | "dark" | "light">(settings.theme ?? "auto");
  const [zone, setZone] = useState(settings.timeZone ?? "browser");
  const [window, setWindow] = useState(settings.windowSeconds === undefined ? "" : String(settings.windowSeconds));
  const [kiosk, setKiosk] = useState(settings.kiosk === true);
  const known = ZONES.includes(zone);

  function use(): void {
    const { theme: _t, timeZone: _z, windowSeconds: _w, kiosk: _k, ...rest } = settings;
    onUse({
      ...document,
      title: title.trim(),
      width,
      columns: Math.min(12, Math.max(3, Math.round(Number(columns)) || document.columns)),
      settings: {
        ...rest,
        ...(theme === "auto" ? {} : { theme }),
        ...(zone === "browser" ? {} : { timeZone: zone }),
        ...(Number(window) > 0 ? { windowSeconds: Number(window) } : {}),
        ...(kiosk ? { kiosk } : {}),
      },
    });
  }

  return (
    <Dialog
      title="Settings of the dashboard"
      onClose={onClose}
      footer={
        <>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="button" class="primary" disabled={!title.trim() || !known} onClick={use}>
            Use these settings
          </button>
        </>
      }
    >
      <Field label="Title" value={title} onInput={setTitle} required />
      <div class="columns">
        <Choice
          label="Width"
          value={width}
          onChange={setWidth}
          choices={[
            ["sm", "Narrow"],
            ["md", "Medium"],
            ["lg", "Wide"],
            ["xl", "As wide as the screen"],
          ]}
        />
        <Field label="Columns" type="number" min={3} max={12} value={columns} onInput={setColumns} />
        <Choice
          label="Theme"
          value={theme}
          onChange={setTheme}
          choices={[
            ["auto", "As the viewer's device prefers"],
            ["dark", "Dark"],
            ["light", "Light"],
          ]}
        />
      </div>
      <div class="columns">
        <Field
          label="Time zone"
          value={zone}
          onInput={setZone}
          list={ZONES}
          fault={known ? undefined : "browser, UTC, or a name such as Europe/Berlin"}
        />
        <Field label="Window of charts, in seconds" type="number" min={10} value={window} onInput={setWindow} placeholder="900" />
      </div>
      <Check label="Kiosk: without the bar, filling the screen" value={kiosk} onChange={setKiosk} />
    </Dialog>
  );
}
