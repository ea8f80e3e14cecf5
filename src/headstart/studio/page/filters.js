// Which images the grid shows, by the name of what is shown, and in which order.

import { isMistaken } from "./labels.js";

export const FILTERS = {
  all: () => true,
  issues: (row) => row.suspicion > 0,
  uncertain: (row) => row.uncertainty !== null && row.status === "ready",
  mistaken: (row) => row.predicted !== null && row.predicted !== row.label && row.label >= 0,
  changed: (row) => row.label !== row.folderLabel,
  unlabelled: (row) => row.label < 0,
  failed: (row) => row.status === "failed",
};
export const LABEL_FILTERS = {
  ...FILTERS,
  mistaken: isMistaken,
  unlabelled: (row) => row.labels === null,
  none: (row) => row.labels?.length === 0 && !row.unknown.length,
  unknown: (row) => row.unknown.length > 0,
};
export const ORDERS = { issues: (a, b) => b.suspicion - a.suspicion, uncertain: (a, b) => b.uncertainty - a.uncertainty };
