// How long operations take: all of them in a table, the chosen one over time.

import type { HeatMap, Operation, Operations } from "./api";
import { colour, count, duration, plural, time } from "./format";
import { type Query, link, search } from "./route";
import { useApi } from "./use_api";

const CELL = 12;
const LEFT = 70;
const BOTTOM = 20;

export function LatencyView({ query, tick }: { query: Query; tick: number }) {
  const { data } = useApi<Operations>("operations", tick);
  if (!data) return <p class="empty">Reading…</p>;
  const first = data.operations[0];
  if (!first) return <p class="empty">There are no spans yet: nothing was traced.</p>;
  const chosen = { service: query.service ?? first.service, name: query.name ?? first.name };
  return (
    <section class="latency">
      <Heat operation={chosen} tick={tick} />
      <table class="list">
        <thead>
          <tr>
            <th>service</th>
            <th>span</th>
            <th class="number">count</th>
            <th class="number">errors</th>
            <th class="number">p50</th>
            <th class="number">p90</th>
            <th class="number">p99</th>
            <th class="number">max</th>
          </tr>
        </thead>
        <tbody>
          {data.operations.map((operation) => (
            <Line operation={operation} chosen={operation.service === chosen.service && operation.name === chosen.name} />
          ))}
        </tbody>
      </table>
      {data.more + data.left_out > 0 && <p class="caption">{plural(data.more, "operation")} more, with fewer spans</p>}
    </section>
  );
}

function Line({ operation, chosen }: { operation: Operation; chosen: boolean }) {
  const { service, name } = operation;
  return (
    <tr class={chosen ? "chosen" : ""}>
      <td>
        <i class={`dot ${colour(service)}`} />
        {service}
      </td>
      <td class="name">
        <a href={link("latency", { service, name })}>{name || "(no name)"}</a>
      </td>
      <td class="number">
        <a href={link("traces", { service, name })} title="Find their traces">
          {count(operation.count)}
        </a>
      </td>
      <td class="number">{operation.errors > 0 && <span class="error">{count(operation.errors)}</span>}</td>
      <td class="number mono">{duration(operation.p50)}</td>
      <td class="number mono">{duration(operation.p90)}</td>
      <td class="number mono">{duration(operation.p99)}</td>
      <td class="number mono">{duration(operation.max)}</td>
    </tr>
  );
}

function Heat({ operation, tick }: { operation: { service: string; name: string }; tick: number }) {
  const { data } = useApi<HeatMap>(`latency${search(operation)}`, tick);
  if (!data || data.cells.length === 0) return null;
  const rows = data.cells.map((cell) => cell.row);
  const top = Math.max(...rows);
  const bottom = Math.min(...rows);
  const most = Math.max(...data.cells.map((cell) => cell.count));
  const height = (top - bottom + 1) * CELL;
  const [width, y] = [LEFT + data.columns * CELL, (row: number) => (top - row) * CELL];
  const labelled = data.cells.filter((cell, at) => rows.indexOf(cell.row) === at && (top - cell.row) % 2 === 0);
  const seconds = duration(data.width * data.columns);
  return (
    <figure class="heat">
      <figcaption>
        <b>{operation.name}</b> of {operation.service}: {plural(data.count, "span")}; from left to right {seconds} from{" "}
        {time(data.start)}; upwards how long they took; the darker, the more
      </figcaption>
      <svg width={width} height={height + BOTTOM} role="img" aria-label="How many spans took how long, over time">
        {labelled.map((cell) => (
          <text x={LEFT - 6} y={y(cell.row) + CELL - 3} class="figures end">
            {duration(cell.from)}
          </text>
        ))}
        {data.cells.map((cell) => (
          <a
            href={link("traces", { ...operation, min: `${cell.from}ns`, max: `${cell.to - 1}ns` })}
            aria-label={`${duration(cell.from)} to ${duration(cell.to)}: ${plural(cell.count, "span")}`}
          >
            <rect
              x={LEFT + cell.column * CELL}
              y={y(cell.row)}
              width={CELL - 1}
              height={CELL - 1}
              style={{ fillOpacity: 0.15 + 0.85 * (Math.log(1 + cell.count) / Math.log(1 + most)) }}
            >
              <title>{`${duration(cell.from)} to ${duration(cell.to)}: ${plural(cell.count, "span")}`}</title>
            </rect>
          </a>
        ))}
        <text x={LEFT} y={height + 15} class="figures">
          {time(data.start)}
        </text>
        <text x={width} y={height + 15} class="figures end">
          +{seconds}
        </text>
      </svg>
    </figure>
  );
}
