// Numbers, durations and times for people.

/** Three digits and a unit: 411 ns, 82.4 us, 31.4 ms, 2.35 s. */
export function duration(ns: number): string {
  if (ns < 1000) return `${Math.round(ns)} ns`;
  if (ns < 1e6) return `${digits(ns / 1e3)} us`;
  if (ns < 1e9) return `${digits(ns / 1e6)} ms`;
  return `${digits(ns / 1e9)} s`;
}

function digits(value: number): string {
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
}

export function count(value: number): string {
  return value.toLocaleString("en-US");
}

export function plural(value: number, word: string): string {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

/** Per second; `seconds` is how long what was counted took. */
export function rate(value: number, seconds: number): string {
  if (seconds <= 0) return "";
  const rate = value / seconds;
  return `${rate < 10 ? rate.toFixed(2) : count(Math.round(rate))}/s`;
}

/** UTC, as the agent's terminal has it. A date that is none is shown as the number that it is. */
export function time(ns: string): string {
  const date = new Date(Number(BigInt(ns) / 1_000_000n));
  return Number.isNaN(date.getTime()) ? `${ns} ns` : date.toISOString().replace("T", " ");
}

/** One of eight colours, the same for a name each time. */
export function colour(name: string): string {
  let hash = 7;
  for (let at = 0; at < name.length; at += 1) hash = (hash * 31 + name.charCodeAt(at)) >>> 0;
  return `colour-${hash % 8}`;
}
