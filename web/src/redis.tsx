// Who made whom wait at Redis servers: a matrix of services, all pairs, and the worst moments.

import type { Moment, Redis } from "./api";
import { colour, count, duration, plural, time } from "./format";
import { link } from "./route";
import { useApi } from "./use_api";

export function RedisView({ tick }: { tick: number }) {
  const { data } = useApi<Redis>("redis", tick);
  if (!data) return <p class="empty">Reading…</p>;
  if (data.commands === 0) return <p class="empty">There are no Redis commands among the spans.</p>;
  return (
    <section class="redis">
      <p class="caption">
        {plural(data.commands, "command")}, of {count(data.explained)} of which it is known what they waited for; {count(data.waited)}{" "}
        waited for others
      </p>
      {data.pairs.length === 0 ? (
        <p class="empty">No command waited for another one.</p>
      ) : (
        <>
          <h2>Who made whom wait</h2>
          <Matrix data={data} />
          <h2>The worst moments</h2>
          {data.moments.map((moment) => (
            <Timeline moment={moment} />
          ))}
          <h2>With what</h2>
          <Pairs data={data} />
        </>
      )}
    </section>
  );
}

/** Sums over all commands: who held the server is a column, who waited a row. */
function Matrix({ data }: { data: Redis }) {
  const holders = [...new Set(data.pairs.map((pair) => pair.holder))];
  const waiting = [...new Set(data.pairs.map((pair) => pair.waiting))];
  const sums = new Map<string, number>();
  for (const pair of data.pairs) {
    const key = JSON.stringify([pair.waiting, pair.holder]);
    sums.set(key, (sums.get(key) ?? 0) + pair.total);
  }
  const most = Math.max(1, ...sums.values());
  return (
    <table class="matrix">
      <thead>
        <tr>
          <th>waited ↓ for →</th>
          {holders.map((holder) => (
            <th>{holder}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {waiting.map((service) => (
          <tr>
            <th>
              <a href={link("traces", { service, attr: "tracer.redis.blocked_by" })}>{service}</a>
            </th>
            {holders.map((holder) => {
              const sum = sums.get(JSON.stringify([service, holder]));
              return (
                <td>
                  {sum !== undefined && (
                    <>
                      <i class="shade" style={{ opacity: 0.1 + 0.6 * (sum / most) }} />
                      <span>{duration(sum)}</span>
                    </>
                  )}
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Pairs({ data }: { data: Redis }) {
  return (
    <table class="list">
      <thead>
        <tr>
          <th>held the server</th>
          <th>with</th>
          <th>kind</th>
          <th>waited</th>
          <th class="number">total</th>
          <th class="number">count</th>
          <th class="number">max</th>
        </tr>
      </thead>
      <tbody>
        {data.pairs.slice(0, 200).map((pair) => (
          <tr>
            <td>{pair.holder}</td>
            <td>{pair.held_by}</td>
            <td>{pair.kind}</td>
            <td>
              {pair.waiting} <b>{pair.command}</b>
            </td>
            <td class="number mono">{duration(pair.total)}</td>
            <td class="number">{count(pair.count)}</td>
            <td class="number mono">{duration(pair.max)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** A lane for each client of the server, and above them the command that waited. */
function Timeline({ moment }: { moment: Moment }) {
  const clients = [...new Set(moment.timeline.map((slot) => slot.client))].slice(0, 12);
  const whole = Math.max(1, moment.duration);
  const place = (from: number, to: number) => ({
    left: `${(100 * from) / whole}%`,
    width: `${(100 * (to - from)) / whole}%`,
  });
  return (
    <div class="moment">
      <p>
        <a href={link(`trace/${moment.trace}`)}>
          {moment.service} <b>{moment.command}</b>
        </a>{" "}
        took {duration(moment.duration)}, of which it waited {duration(moment.queue)} · {time(moment.start)}
        {moment.why && <span class="caption"> · {moment.why}</span>}
      </p>
      {clients.map((client) => (
        <div class="lane">
          <span class="label">{client}</span>
          <span class="time">
            {moment.timeline
              .filter((slot) => slot.client === client)
              .map((slot) => (
                <i
                  class={`bar ${colour(slot.command)}`}
                  style={place(slot.from, slot.to)}
                  title={`${slot.command}: ${duration(slot.to - slot.from)}`}
                >
                  {slot.to - slot.from > whole / 8 && `${slot.command} ${duration(slot.to - slot.from)}`}
                </i>
              ))}
          </span>
        </div>
      ))}
      {clients.length === 0 && <p class="caption">The server itself was not attached to: what it did is not known.</p>}
    </div>
  );
}
