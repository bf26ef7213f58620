export { Client, type BesideOptions, type ClientOptions } from "./client.js";
export * from "./errors.js";
export type { Configured, ConfiguredItem } from "./fallback.js";
export { Items, type ImportedLine, type Item, type ItemChange, type ItemFields, type ItemLine, type ItemPage } from "./items.js";
export type { Bounds, OnDrop } from "./outbox.js";
export type { Page } from "./page.js";
export type { Keeper } from "./sender.js";
export type * from "./types.js";
