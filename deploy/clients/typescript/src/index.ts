export { Client, type ClientOptions } from "./client.js";
export * from "./errors.js";
export type { Configured, ConfiguredItem } from "./fallback.js";
export type { Bounds, OnDrop } from "./outbox.js";
export type { Page } from "./page.js";
export type { Keeper } from "./sender.js";
export type * from "./types.js";
