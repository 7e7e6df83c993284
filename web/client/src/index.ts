export { Dashboard, type DashboardState, type Options, type WatchedDatasource } from "./dashboard.js";
export type { Datasource, DatasourceState } from "./datasource.js";
export { Refused } from "./errors.js";
export type { EndReason, Frame, Json, Point, Session } from "./frames.js";
export type { Sample, Series } from "./series.js";
export { call, mint, wouldRefuse, type Source, type Verdicts } from "./session.js";
