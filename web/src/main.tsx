// The frame of the page: views, what is shown, and whether tracer is still there.

import { type VNode, render } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Refused, Summary } from "./api";
import { count, plural } from "./format";
import { HealthView } from "./health";
import { LatencyView } from "./latency";
import { MapView } from "./map";
import { RedisView } from "./redis";
import { type Route, useRoute } from "./route";
import { TraceView } from "./trace";
import { TracesView } from "./traces";
import { useApi } from "./use_api";

const VIEWS: [string, string][] = [
  ["traces", "Traces"],
  ["map", "Map"],
  ["latency", "Latency"],
  ["redis", "Redis"],
  ["health", "Health"],
];
/** Milliseconds between two questions. */
const EVERY = 2000;

function Page() {
  const route = useRoute();
  const [paused, setPaused] = useState(false);
  const [tick, setTick] = useState(0);
  const [asked, setAsked] = useState(0);
  const summary = useApi<Summary>("summary", asked);
  const changes = summary.data === null || summary.data.live || summary.data.loading;
  useEffect(() => {
    const again = () => {
      // A page that nobody sees asks nothing.
      if (document.visibilityState === "visible") setAsked((asked) => asked + 1);
    };
    if (!changes && summary.error === null) return undefined;
    const timer = setInterval(again, EVERY);
    return () => clearInterval(timer);
  }, [changes, summary.error === null]);
  const state = summary.data && `${summary.data.spans} ${summary.data.forgotten} ${summary.data.loading}`;
  useEffect(() => {
    if (!paused) setTick((tick) => tick + 1);
  }, [state, summary.data?.live ? asked : 0, paused]);
  useShortcuts();
  return (
    <>
      <header>
        <b class="brand">tracer</b>
        <nav aria-label="Views">
          {VIEWS.map(([view, name]) => (
            <a href={`#${view}`} aria-current={isIn(route, view) ? "page" : undefined}>
              {name}
            </a>
          ))}
        </nav>
        {summary.data && <Source summary={summary.data} />}
        {summary.data?.live && (
          <button type="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>
            {paused ? "Go on" : "Pause"}
          </button>
        )}
      </header>
      {summary.error && <Gone error={summary.error} />}
      <main>{shown(route, tick, summary.data)}</main>
    </>
  );
}

function isIn(route: Route, view: string): boolean {
  return route.view === view || (view === "traces" && route.view === "trace");
}

function shown(route: Route, tick: number, summary: Summary | null): VNode {
  switch (route.view) {
    case "traces":
      return <TracesView query={route.query} tick={tick} loading={summary?.loading ?? true} />;
    case "trace":
      return <TraceView id={route.rest} query={route.query} />;
    case "map":
      return <MapView tick={tick} />;
    case "latency":
      return <LatencyView query={route.query} tick={tick} />;
    case "redis":
      return <RedisView tick={tick} />;
    case "health":
      return <HealthView tick={tick} summary={summary} />;
    default:
      return <p class="empty">There is no such view.</p>;
  }
}

function Source({ summary }: { summary: Summary }) {
  const what = [summary.source, plural(summary.traces, "trace"), plural(summary.spans, "span")];
  if (summary.loading) what.push("reading…");
  if (summary.forgotten > 0) what.push(`${count(summary.forgotten)} older spans forgotten`);
  const title = `The newest whole traces are shown; at most ${plural(summary.bound, "span")} are kept.`;
  return (
    <span class="source" title={title} data-loading={summary.loading}>
      {what.join(" · ")}
    </span>
  );
}

function Gone({ error }: { error: Refused }) {
  const what =
    error.status === 0
      ? "tracer has ended or does not answer: what is shown is what it said last."
      : error.status === 401
        ? "tracer does not know this page any more: open the address that it has printed."
        : error.message;
  return (
    <p class="gone" role="alert">
      {what}
    </p>
  );
}

/** `/` goes to the search. */
function useShortcuts(): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const typing = event.target instanceof Element && event.target.closest("input, select, textarea");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const first = document.querySelector<HTMLElement>("form select, form input");
      if (first) {
        event.preventDefault();
        first.focus();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

// The token is in a cookie now: it shall not stay where it can be read.
if (new URLSearchParams(location.search).has("token")) {
  history.replaceState(null, "", location.pathname + location.hash);
}
const root = document.getElementById("page");
if (root) {
  root.replaceChildren();
  render(<Page />, root);
}
