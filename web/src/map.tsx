// Services and servers as a graph, and the same as a table.

import { Graph, layout } from "@dagrejs/dagre";
import { useMemo } from "preact/hooks";
import type { Edge, ServiceMap } from "./api";
import { colour, count, duration, plural, rate } from "./format";
import { link } from "./route";
import { useApi } from "./use_api";

/** Larger ones are a table only: nobody could read the graph. */
const MAX_DRAWN = 60;
const WIDTH = 170;
const HEIGHT = 44;

export function MapView({ tick }: { tick: number }) {
  const { data } = useApi<ServiceMap>("map", tick);
  if (!data) return <p class="empty">Reading…</p>;
  if (data.nodes.length === 0) return <p class="empty">There are no spans yet: nothing was traced.</p>;
  return (
    <section class="map">
      <p class="caption">
        in {duration(data.seconds * 1e9)}; of commands and calls the time until the answer, of messages the time on the way
        {data.left_out > 0 && ` · ${plural(data.left_out, "span")} of further services are left out`}
      </p>
      {data.nodes.length <= MAX_DRAWN && <Drawing map={data} />}
      <table class="list">
        <thead>
          <tr>
            <th>from</th>
            <th>to</th>
            <th>what</th>
            <th class="number">count</th>
            <th class="number">rate</th>
            <th class="number">errors</th>
            <th class="number">p50</th>
            <th class="number">p99</th>
          </tr>
        </thead>
        <tbody>
          {[...data.edges]
            .sort((a, b) => b.count - a.count)
            .map((edge) => (
              <tr>
                <td>{name(data, edge.from)}</td>
                <td>{name(data, edge.to)}</td>
                <td>{edge.kind}</td>
                <td class="number">{count(edge.count)}</td>
                <td class="number">{rate(edge.count, data.seconds)}</td>
                <td class="number">{edge.errors > 0 && <span class="error">{count(edge.errors)}</span>}</td>
                <td class="number mono">{duration(edge.p50)}</td>
                <td class="number mono">{duration(edge.p99)}</td>
              </tr>
            ))}
        </tbody>
      </table>
    </section>
  );
}

function name(map: ServiceMap, node: number): string {
  return map.nodes[node]?.name ?? "";
}

interface Placed {
  width: number;
  height: number;
  nodes: { x: number; y: number }[];
  edges: { path: string; x: number; y: number; edge: Edge }[];
}

function place(map: ServiceMap): Placed {
  const graph = new Graph({ multigraph: true });
  graph.setGraph({ rankdir: "LR", nodesep: 34, ranksep: 30, marginx: 10, marginy: 10 });
  // In a ring of services the first one is on the left.
  const order = map.nodes.map((_, at) => at).sort((a, b) => (map.nodes[b]?.begins ?? 0) - (map.nodes[a]?.begins ?? 0));
  order.forEach((at) => graph.setNode(String(at), { width: WIDTH, height: HEIGHT }));
  map.edges.forEach((edge, at) => {
    graph.setEdge(String(edge.from), String(edge.to), { width: 120, height: 32, labelpos: "c" }, String(at));
  });
  layout(graph);
  const size = graph.graph() as { width?: number; height?: number };
  return {
    width: size.width ?? 0,
    height: size.height ?? 0,
    nodes: map.nodes.map((_, at) => graph.node(String(at)) as { x: number; y: number }),
    edges: map.edges.map((edge, at) => {
      const placed = graph.edge(String(edge.from), String(edge.to), String(at)) as {
        points: { x: number; y: number }[];
        x?: number;
        y?: number;
      };
      const path = placed.points.map((point, index) => `${index === 0 ? "M" : "L"}${point.x} ${point.y}`).join(" ");
      return { path, x: placed.x ?? 0, y: placed.y ?? 0, edge };
    }),
  };
}

function Drawing({ map }: { map: ServiceMap }) {
  // Where things are depends on who talks to whom, not on how often: nothing moves while figures change.
  const shape = JSON.stringify([map.nodes.map((node) => node.name), map.edges.map((edge) => [edge.from, edge.to, edge.kind])]);
  const placed = useMemo(() => place(map), [shape]);
  return (
    <div class="drawing" tabIndex={0}>
      <svg width={placed.width} height={placed.height} viewBox={`0 0 ${placed.width} ${placed.height}`} role="img" aria-label="Who talks to whom; the table below says the same">
        <defs>
          <marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
            <path d="M0 0 8 4 0 8z" class="arrow" />
          </marker>
        </defs>
        {placed.edges.map(({ path, x, y }, at) => {
          const edge = map.edges[at];
          return (
            edge && (
              <g class={`edge ${edge.kind}${edge.errors ? " failed" : ""}`}>
                <path d={path} marker-end="url(#arrow)" />
                <text x={x} y={y - 4}>
                  {rate(edge.count, map.seconds) || count(edge.count)} {edge.kind}
                  {edge.errors > 0 && `, ${count(edge.errors)} failed`}
                </text>
                <text x={x} y={y + 10} class="figures">
                  {duration(edge.p50)} · {duration(edge.p99)}
                </text>
              </g>
            )
          );
        })}
        {map.nodes.map((node, at) => {
          const { x, y } = placed.nodes[at] ?? { x: 0, y: 0 };
          const box = (
            <g class={`node ${node.kind} ${colour(node.name)}`} transform={`translate(${x - WIDTH / 2} ${y - HEIGHT / 2})`}>
              <rect width={WIDTH} height={HEIGHT} rx={node.kind === "server" ? 20 : 5} />
              <text x={WIDTH / 2} y={19}>
                {node.name.length > 24 ? `${node.name.slice(0, 23)}…` : node.name}
              </text>
              <text x={WIDTH / 2} y={35} class="figures">
                {node.kind === "server" ? "server" : plural(node.spans, "span")}
                {node.errors > 0 && `, ${count(node.errors)} failed`}
              </text>
              <title>{node.name}</title>
            </g>
          );
          return node.kind === "service" ? <a href={link("traces", { service: node.name })}>{box}</a> : box;
        })}
      </svg>
    </div>
  );
}
