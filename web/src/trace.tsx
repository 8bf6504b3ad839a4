// One trace: each span as a bar in time, below its parent.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Span, Trace } from "./api";
import { Details } from "./details";
import { colour, count, duration, plural, time } from "./format";
import { type Query, go } from "./route";
import { useApi } from "./use_api";

/** Pixels of a row; the style sheet has the same number. */
const ROW = 24;
/** Pixels of a level; beyond so many levels nothing is moved further. */
const INDENT = 12;
const MAX_INDENT = 16;
/** Rows that are drawn above and below what is seen. */
const AROUND = 10;
const TICKS = [0, 0.25, 0.5, 0.75, 1];

export function TraceView({ id, query }: { id: string; query: Query }) {
  const { data, error } = useApi<Trace>(`trace/${encodeURIComponent(id)}`, 0);
  if (error && !data) return <p class="empty">{error.message}</p>;
  if (!data) return <p class="empty">Reading…</p>;
  return <Shown key={data.id} trace={data} query={query} />;
}

function Shown({ trace, query }: { trace: Trace; query: Query }) {
  const [closed, setClosed] = useState<ReadonlySet<number>>(new Set());
  const selected = trace.spans.findIndex((span) => span.id === query.span);
  const visible = useMemo(() => open(trace.spans, closed), [trace, closed]);
  const onPath = trace.spans.filter((span) => span.critical.length > 0).length;
  const services = new Set(trace.spans.map((span) => span.service)).size;
  const select = (at: number | undefined) => {
    const span = at === undefined ? undefined : trace.spans[at];
    go(`trace/${trace.id}`, span ? { span: span.id } : {}, true);
  };
  const toggle = (at: number, close: boolean) => {
    const next = new Set(closed);
    if (close) next.add(at);
    else next.delete(at);
    setClosed(next);
  };
  const keys = (event: KeyboardEvent) => {
    const at = visible.indexOf(selected);
    const span = trace.spans[selected];
    const moves: Record<string, () => void> = {
      ArrowDown: () => select(visible[Math.min(at + 1, visible.length - 1)]),
      ArrowUp: () => select(visible[Math.max(at - 1, 0)]),
      Home: () => select(visible[0]),
      End: () => select(visible[visible.length - 1]),
      Escape: () => select(undefined),
      ArrowLeft: () => {
        if (span && hasChildren(trace.spans, selected) && !closed.has(selected)) toggle(selected, true);
        else if (span && span.parent !== null) select(span.parent);
      },
      ArrowRight: () => span && toggle(selected, false),
    };
    const move = moves[event.key];
    if (move && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      move();
    }
  };
  return (
    <section class="trace">
      <div class="head">
        <h1>
          {trace.spans[0] ? `${trace.spans[0].service} ${trace.spans[0].name}` : "an empty trace"}
          <small class="mono">{trace.id}</small>
        </h1>
        <p class="caption">
          {time(trace.start)} · {duration(trace.duration)} · {plural(trace.count, "span")} of {plural(services, "service")} ·{" "}
          <span class="key-critical">the critical path</span> has {plural(onPath, "span")}
          {trace.spans.length < trace.count && ` · the first ${count(trace.spans.length)} spans are shown, a download has all`}
          {" · download "}
          {["otlp", "jaeger", "perfetto"].map((format) => (
            <a href={`api/trace/${trace.id}/download?as=${format}`} download>
              {format}
            </a>
          ))}
        </p>
      </div>
      <div class="body">
        <Waterfall
          trace={trace}
          visible={visible}
          closed={closed}
          selected={selected}
          select={select}
          toggle={toggle}
          keys={keys}
        />
        {selected >= 0 && trace.spans[selected] && (
          <Details trace={trace} span={trace.spans[selected]} close={() => select(undefined)} select={select} />
        )}
      </div>
    </section>
  );
}

/** Places of the spans of which no ancestor is closed. */
function open(spans: Span[], closed: ReadonlySet<number>): number[] {
  const hidden = new Set<number>();
  spans.forEach((span, at) => {
    if (span.parent !== null && (closed.has(span.parent) || hidden.has(span.parent))) hidden.add(at);
  });
  return spans.map((_, at) => at).filter((at) => !hidden.has(at));
}

/** A span's first child stands behind it. */
function hasChildren(spans: Span[], at: number): boolean {
  return spans[at + 1]?.parent === at;
}

interface WaterfallProps {
  trace: Trace;
  visible: number[];
  closed: ReadonlySet<number>;
  selected: number;
  select: (at: number) => void;
  toggle: (at: number, close: boolean) => void;
  keys: (event: KeyboardEvent) => void;
}

/** Only the rows that are seen are drawn: a trace may have thousands. */
function Waterfall({ trace, visible, closed, selected, select, toggle, keys }: WaterfallProps) {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState({ top: 0, height: 800 });
  const look = () => box.current && setSeen({ top: box.current.scrollTop, height: box.current.clientHeight });
  useEffect(() => {
    look();
    addEventListener("resize", look);
    return () => removeEventListener("resize", look);
  }, []);
  const at = visible.indexOf(selected);
  useEffect(() => {
    const element = box.current;
    if (!element || at < 0) return;
    if (at * ROW < element.scrollTop) element.scrollTop = at * ROW;
    const below = (at + 2) * ROW - element.clientHeight;
    if (below > element.scrollTop) element.scrollTop = below;
  }, [at]);
  const first = Math.max(0, Math.floor(seen.top / ROW) - AROUND);
  const rows = visible.slice(first, first + Math.ceil(seen.height / ROW) + 2 * AROUND);
  return (
    <div class="waterfall">
      <div class="axis" aria-hidden="true">
        <span class="label">span</span>
        <span class="time">
          {TICKS.map((part) => (
            <i style={{ left: `${part * 100}%` }}>{duration(trace.duration * part)}</i>
          ))}
        </span>
      </div>
      <div
        class="rows"
        ref={box}
        tabIndex={0}
        role="listbox"
        aria-label="Spans: arrow keys choose, left and right close and open"
        aria-activedescendant={selected >= 0 ? `span-${selected}` : undefined}
        onScroll={look}
        onKeyDown={keys}
      >
        <div class="height" style={{ height: `${visible.length * ROW}px` }}>
          {rows.map((place, index) => {
            const span = trace.spans[place];
            if (!span) return null;
            return (
              <div
                key={place}
                id={`span-${place}`}
                role="option"
                aria-selected={place === selected}
                class={`row${span.critical.length ? " critical" : ""}${span.error !== null ? " failed" : ""}`}
                style={{ top: `${(first + index) * ROW}px` }}
                onClick={() => select(place)}
              >
                <Label
                  span={span}
                  parent={span.parent === null ? undefined : trace.spans[span.parent]}
                  mark={hasChildren(trace.spans, place) ? (closed.has(place) ? "▸" : "▾") : ""}
                  toggle={() => toggle(place, !closed.has(place))}
                />
                <Bar span={span} whole={trace.duration} />
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}

interface LabelProps {
  span: Span;
  parent: Span | undefined;
  mark: string;
  toggle: () => void;
}

function Label({ span, parent, mark, toggle }: LabelProps) {
  const hops = parent !== undefined && (parent.process[0] !== span.process[0] || parent.process[1] !== span.process[1]);
  const lost = span.parent === null && span.parent_id !== null;
  return (
    <span class="label" style={{ paddingLeft: `${Math.min(span.depth, MAX_INDENT) * INDENT}px` }}>
      <span
        class="mark"
        onClick={(event) => {
          event.stopPropagation();
          toggle();
        }}
      >
        {mark}
      </span>
      {hops && (
        <span class="hop" title="its parent is in another process">
          ↳
        </span>
      )}
      {lost && (
        <span class="hop" title="its parent is not here">
          ⋯
        </span>
      )}
      <i class={`dot ${colour(span.service)}`} />
      <span class="service">{span.service}</span>
      <b>{span.name}</b>
    </span>
  );
}

function Bar({ span, whole }: { span: Span; whole: number }) {
  const place = (from: number, to: number) => {
    const left = whole > 0 ? Math.min(100, (100 * from) / whole) : 0;
    const width = whole > 0 ? Math.max(0, Math.min(100 - left, (100 * (to - from)) / whole)) : 100;
    return { left: `${left}%`, width: `${width}%` };
  };
  const end = span.start + span.duration;
  const right = whole > 0 && end / whole > 0.85;
  const edge = whole > 0 ? (100 * (right ? span.start : end)) / whole : 100;
  return (
    <span class="time">
      <i class={`bar ${colour(span.service)}`} style={place(span.start, end)} />
      {span.critical.map(([from, to, onTheWay]) => (
        <i class={onTheWay ? "path way" : "path"} style={place(from, to)} />
      ))}
      <span class="took" style={right ? { right: `${100 - edge}%` } : { left: `${edge}%` }}>
        {duration(span.duration)}
      </span>
    </span>
  );
}
