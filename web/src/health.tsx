// Whether what is shown is all there was: the balance, and what was lost.

import type { Health, Summary } from "./api";
import { count, plural } from "./format";
import { useApi } from "./use_api";

export function HealthView({ tick, summary }: { tick: number; summary: Summary | null }) {
  const { data } = useApi<Health | null>("health", tick);
  return (
    <section class="health">
      {summary && (
        <p>
          {summary.live
            ? "A live session."
            : summary.loading
              ? `${summary.source} is being read.`
              : `${summary.source} was read.`}{" "}
          {plural(summary.spans, "span")} are kept, of at most {count(summary.bound)}
          {summary.forgotten > 0 && `; ${count(summary.forgotten)} older ones are forgotten, and the traces that they were part of`}.
        </p>
      )}
      {!data && <p class="empty">{summary?.loading ? "The balance is known when all is read." : "The balance is on its way…"}</p>}
      {data && <Report health={data} />}
    </section>
  );
}

function Report({ health }: { health: Health }) {
  return (
    <>
      {health.problem && (
        <p class="gone" role="alert">
          {health.problem}
        </p>
      )}
      {health.targets !== null && <p>{health.targets === 1 ? "1 process is" : `${count(health.targets)} processes are`} traced.</p>}
      <h2>Lost</h2>
      {health.lost.length === 0 ? (
        <p class="good">Nothing was lost.</p>
      ) : (
        <table class="list">
          <thead>
            <tr>
              <th>cause</th>
              <th class="number">number</th>
              <th>what helps</th>
            </tr>
          </thead>
          <tbody>
            {health.lost.map((loss) => (
              <tr>
                <td class="mono">{loss.cause}</td>
                <td class="number">
                  <span class="error">{count(loss.number)}</span>
                </td>
                <td>{loss.remedy}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      <h2>Balance</h2>
      <p class="caption">Everything that was produced has one fate. While a session runs, some are on the way.</p>
      <table class="list">
        <thead>
          <tr>
            <th>what</th>
            <th class="number">produced</th>
            <th>fates</th>
            <th />
          </tr>
        </thead>
        <tbody>
          {health.balance
            .filter((equation) => equation.produced > 0 || !equation.holds)
            .map((equation) => (
              <tr>
                <td>{equation.what}</td>
                <td class="number">{count(equation.produced)}</td>
                <td>{equation.fates.map(([name, number]) => `${count(number)} ${name}`).join(" + ")}</td>
                <td>{equation.holds ? "holds" : <span class="warn">on the way</span>}</td>
              </tr>
            ))}
        </tbody>
      </table>
    </>
  );
}
