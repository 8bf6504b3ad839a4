// What the server answers (tracer/src/web/views), and how it is asked.

export type Nanos = number;
/** Nanoseconds since 1970, with more digits than a number has. */
export type Time = string;
/** Name and text; of a text that was cut also how many bytes it has. */
export type Attribute = [string, string, number?];

export interface Summary {
  version: string;
  source: string;
  live: boolean;
  loading: boolean;
  spans: number;
  forgotten: number;
  bound: number;
  traces: number;
}

export interface Bar {
  from: Nanos;
  to: Nanos;
  count: number;
}

export interface Row {
  id: string;
  start: Time;
  duration: Nanos;
  service: string;
  name: string;
  spans: number;
  errors: number;
  services: string[];
  services_more: number;
  fits: { service: string; name: string; duration: Nanos } | null;
}

export interface Found {
  found: number;
  by_span: boolean;
  histogram: Bar[];
  traces: Row[];
}

export interface Span {
  id: string;
  parent: number | null;
  parent_id: string | null;
  remote: boolean;
  depth: number;
  service: string;
  process: [number, number];
  name: string;
  kind: string;
  start: Nanos;
  duration: Nanos;
  error: string | null;
  /** From, to, and whether nothing ran there. */
  critical: [Nanos, Nanos, boolean][];
  attributes: Attribute[];
  resource: Attribute[];
  links: { trace: string; span: string; kept: boolean; attributes: Attribute[] }[];
  events: { at: Nanos; name: string; attributes: Attribute[] }[];
}

export interface Trace {
  id: string;
  start: Time;
  duration: Nanos;
  count: number;
  spans: Span[];
}

export interface Edge {
  from: number;
  to: number;
  kind: "commands" | "calls" | "messages";
  count: number;
  errors: number;
  p50: Nanos;
  p99: Nanos;
}

export interface ServiceMap {
  seconds: number;
  nodes: { kind: "service" | "server"; name: string; spans: number; errors: number; begins: number }[];
  edges: Edge[];
  left_out: number;
}

export interface Operation {
  service: string;
  name: string;
  count: number;
  errors: number;
  p50: Nanos;
  p90: Nanos;
  p99: Nanos;
  max: Nanos;
}

export interface Operations {
  operations: Operation[];
  more: number;
  left_out: number;
}

export interface HeatMap {
  start: Time;
  width: Nanos;
  columns: number;
  count: number;
  cells: { column: number; row: number; from: Nanos; to: Nanos; count: number }[];
}

export interface Health {
  targets: number | null;
  problem: string | null;
  balance: { what: string; produced: number; holds: boolean; fates: [string, number][] }[];
  lost: { cause: string; number: number; remedy: string | null }[];
}

export interface Moment {
  trace: string;
  start: Time;
  duration: Nanos;
  service: string;
  command: string;
  queue: Nanos;
  service_time: Nanos | null;
  network: Nanos | null;
  why: string | null;
  timeline: { from: Nanos; to: Nanos; client: string; command: string }[];
}

export interface Redis {
  commands: number;
  explained: number;
  waited: number;
  pairs: {
    holder: string;
    held_by: string;
    kind: string;
    waiting: string;
    command: string;
    total: Nanos;
    max: Nanos;
    count: number;
  }[];
  left_out: number;
  moments: Moment[];
}

/** The server said no, or is not there (status 0). */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export async function ask<T>(path: string, signal?: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(`api/${path}`, signal ? { signal } : {});
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "tracer does not answer");
  }
  if (!response.ok) throw new Refused(response.status, (await response.text()).trim() || `tracer answers ${response.status}`);
  return (await response.json()) as T;
}
