/** Files that are imported in the tests: a document of Freeboard with all it has, and a board of the classic one. */

export const VERSION_1 = {
  schemaVersion: 1,
  title: "Machine hall",
  generator: { name: "freeboard", version: "3.0.0" },
  image: null,
  columns: 6,
  width: "lg",
  settings: { theme: "dark", allowMobileEdit: false, script: "alert(1)" },
  datasources: [
    { id: "ds_temp", title: "Rack temp", type: "http", enabled: true, settings: { url: "https://example.com/t", refresh: 5 } },
    { id: "live", title: "Live", type: "sse", enabled: true, settings: { url: "https://example.com/s" } },
  ],
  panes: [
    {
      id: "pane_env",
      title: "Environment",
      layout: { x: 0, y: 0, w: 2, h: 2, i: "pane_env" },
      widgets: [
        {
          id: "w_temp",
          title: "Temperature",
          type: "text",
          enabled: true,
          settings: { headerText: "Rack", value: 'datasources["ds_temp"].celsius', unitText: "°C" },
        },
        { id: "w_gauge", title: null, type: "gauge", enabled: true, settings: { valuePath: "Live.flow", min: 5, max: 50, precision: 1 } },
        { id: "w_lines", type: "sparkline", enabled: false, settings: { seriesPaths: "live.a, live.b[0]" } },
        { id: "w_on", type: "indicator", settings: { valuePath: "{{ datasources.live.on }}", onText: "Open", offText: "Shut" } },
        { id: "w_rows", type: "table", settings: { valuePath: "live.rows", columns: [{ field: "name", header: "Name" }] } },
        { id: "w_html", type: "html", settings: { html: "<b>{{ live.x }}</b>" } },
        { id: "w_map", type: "map", settings: { latPath: "live.lat" } },
      ],
    },
  ],
};

export const CLASSIC = {
  version: 1,
  allow_edit: true,
  header_image: "https://example.com/logo.png",
  plugins: ["https://example.com/plugin.js"],
  panes: [
    {
      title: "Wind",
      width: 1,
      row: { 3: 5 },
      col: { 3: 2 },
      col_width: 2,
      widgets: [
        { type: "pointer", settings: { direction: "datasources.Weather.wind" } },
        { type: "text_widget", settings: { title: "Speed", value: 'datasources["Weather"]["wind"].speed', units: "&deg;F", sparkline: true } },
      ],
    },
    {
      title: "Air",
      row: { 3: 1 },
      col: { 3: 1 },
      widgets: [
        { type: "gauge", settings: { value: "datasources.Weather.humidity", min_value: 0, max_value: 90, units: "%" } },
        { type: "indicator", settings: { value: "if (datasources.Weather.rain > 1) return true;" } },
      ],
    },
  ],
  datasources: [
    { name: "Weather", type: "websocket", settings: { url: "wss://example.com/live?key=secret" } },
    { name: "Old", type: "JSON", settings: { url: "https://example.com", headers: [{ name: "Authorization", value: "secret" }] } },
  ],
};
