import { expect, test } from "vitest";
import { bindingOf, exportDocument, importDocument, NotImportable, same } from "../src/console/transfer/freeboard.js";
import { CLASSIC, VERSION_1 } from "./freeboard-files.js";

test("a document of version 1 comes out as it went in", () => {
  const { document, report } = importDocument(JSON.stringify(VERSION_1), "");
  const [pane] = document.panes;
  expect(pane?.widgets.map(({ type }) => type)).toEqual(["value", "gauge", "sparkline", "status", "table", "html", "map"]);
  expect(pane?.widgets[0]?.settings?.bindings).toEqual([{ datasourceId: "ds_temp", path: "celsius", label: "Rack" }]);
  expect(pane?.widgets[2]?.settings?.bindings?.map(({ path }) => path)).toEqual(["a", "b[0]"]);
  expect(report).toHaveLength(3);
  expect(exportDocument(document)).toEqual(VERSION_1);
  // Also after a store that orders keys in another way.
  const again = JSON.parse(JSON.stringify(document, Object.keys(flat(document)).sort())) as typeof document;
  expect(same(exportDocument(again), VERSION_1)).toBe(true);
});

function flat(value: unknown, found: Record<string, true> = {}): Record<string, true> {
  if (typeof value !== "object" || value === null) return found;
  for (const [key, inner] of Object.entries(value)) {
    found[key] = true;
    flat(inner, found);
  }
  return found;
}

test("a widget that was changed is exported as it is now", () => {
  const { document } = importDocument(JSON.stringify(VERSION_1), "");
  const widget = document.panes[0]?.widgets[1];
  if (!widget?.settings) throw new Error("no gauge");
  widget.settings = { ...widget.settings, max: 60 };
  const [, gauge] = exportDocument(document).panes[0]?.widgets ?? [];
  expect(gauge?.settings).toMatchObject({ max: 60, bindings: [{ datasourceId: "live", path: "flow" }] });
  expect(gauge).not.toHaveProperty("original");
});

test("a classic board is converted, and what could not be is reported", () => {
  const { document, report } = importDocument(JSON.stringify(CLASSIC), "Weather");
  expect(document).toMatchObject({ schemaVersion: 1, title: "Weather", columns: 12 });
  expect(document.datasources.map(({ id, type, enabled }) => [id, type, enabled])).toEqual([
    ["weather", "websocket", false],
    ["old", "sse", false],
  ]);
  expect(document.datasources[0]?.settings).toEqual({ url: "wss://example.com/live" });
  expect(report[0]).toContain("were left out, as they may be secret");
  expect(JSON.stringify(document)).not.toMatch(/Authorization|secret/);
  expect(document.panes.map(({ title, layout }) => [title, layout.x, layout.y, layout.w])).toEqual([
    ["Air", 0, 0, 4],
    ["Wind", 4, 0, 8],
  ]);
  const [gauge, indicator] = document.panes[0]?.widgets ?? [];
  expect(gauge).toMatchObject({ type: "gauge", settings: { unit: "%", max: 90, bindings: [{ datasourceId: "weather", path: "humidity" }] } });
  expect(indicator?.type).toBe("freeboard:indicator");
  const [, speed] = document.panes[1]?.widgets ?? [];
  expect(speed).toMatchObject({ type: "sparkline", settings: { unit: "°F", bindings: [{ path: '["wind"].speed' }] } });
  expect(report).toHaveLength(6);
});

test("what is no dashboard is refused with the reason", () => {
  for (const [text, reason] of [
    ["{", "not JSON"],
    ["[]", "holds no dashboard"],
    ['{"schemaVersion": 2}', "version 2"],
    ["{}", "neither"],
  ] as const) {
    expect(() => importDocument(text, "")).toThrow(NotImportable);
    expect(() => importDocument(text, "")).toThrow(reason);
  }
});

test("code is no binding", () => {
  const sources = [{ id: "a", title: "A b" }];
  expect(bindingOf("datasources.a", sources)).toEqual({ datasourceId: "a", path: "" });
  expect(bindingOf('datasources["A b"].x', sources)).toEqual({ datasourceId: "a", path: "x" });
  expect(bindingOf("return datasources['a']['x'];", sources)).toEqual({ datasourceId: "a", path: '["x"]' });
  for (const code of ["datasources.a.x + 1", "Math.max(1)", "datasources.b.x", "datasources.a.x; alert(1)", 5, ""]) {
    expect(bindingOf(code, sources)).toBeUndefined();
  }
});
