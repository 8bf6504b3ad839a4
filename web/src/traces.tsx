// The search: a form, a histogram of durations, and a list.

import { useEffect, useState } from "preact/hooks";
import type { Found, Operations, Row } from "./api";
import { colour, count, duration, plural, time } from "./format";
import { Histogram } from "./histogram";
import { type Query, go, link, search } from "./route";
import { useApi } from "./use_api";

const FIELDS = ["service", "name", "min", "max", "attr", "error", "sort", "limit"];

export function TracesView({ query, tick, loading }: { query: Query; tick: number; loading: boolean }) {
  const asked = Object.fromEntries(FIELDS.map((field) => [field, query[field] ?? ""]));
  const { data, error } = useApi<Found>(`traces${search(asked)}`, tick);
  const isAsked = FIELDS.slice(0, 6).some((field) => asked[field]);
  return (
    <>
      <Search query={asked} tick={tick} />
      {error?.status === 400 && (
        <p class="gone" role="alert">
          {error.message}
        </p>
      )}
      {data && data.found > 0 && (
        <>
          <Histogram
            bars={data.histogram}
            caption={data.by_span ? "how long the spans took that fit" : "how long the traces took"}
            choose={(min, max) => go("traces", { ...asked, min: `${min}ns`, max: `${max}ns` })}
          />
          <List data={data} query={asked} />
        </>
      )}
      {data && data.found === 0 && (
        <p class="empty">
          {isAsked ? "No trace fits." : loading ? "Reading…" : "There are no spans yet: nothing was traced."}
        </p>
      )}
    </>
  );
}

function Search({ query, tick }: { query: Query; tick: number }) {
  const operations = useApi<Operations>("operations", tick).data?.operations ?? [];
  const [draft, setDraft] = useState(query);
  const asked = JSON.stringify(query);
  useEffect(() => setDraft(query), [asked]);
  const services = [...new Set(operations.map((operation) => operation.service))].sort();
  const names = operations
    .filter((operation) => !draft.service || operation.service === draft.service)
    .map((operation) => operation.name);
  const set = (field: string, value: string) => setDraft({ ...draft, [field]: value });
  const text = (field: string, label: string, hint: string, list?: string) => (
    <label>
      {label}
      <input
        name={field}
        value={draft[field]}
        placeholder={hint}
        list={list}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => set(field, event.currentTarget.value)}
      />
    </label>
  );
  const submit = (event: Event) => {
    event.preventDefault();
    go("traces", draft);
  };
  return (
    <form class="search" onSubmit={submit} role="search">
      <label>
        Service
        <select name="service" value={draft.service} onChange={(event) => set("service", event.currentTarget.value)}>
          <option value="">any</option>
          {services.map((service) => (
            <option value={service}>{service}</option>
          ))}
          {draft.service && !services.includes(draft.service) && <option value={draft.service}>{draft.service}</option>}
        </select>
      </label>
      {text("name", "Span", "any name", "names")}
      <datalist id="names">
        {[...new Set(names)].map((name) => (
          <option value={name} />
        ))}
      </datalist>
      {text("min", "At least", "1.5ms")}
      {text("max", "At most", "2s")}
      {text("attr", "Attribute", "key=value, key~part or key")}
      <label>
        First
        <select name="sort" value={draft.sort} onChange={(event) => set("sort", event.currentTarget.value)}>
          <option value="">the newest</option>
          <option value="longest">the longest</option>
          <option value="largest">most spans</option>
        </select>
      </label>
      <label class="check">
        <input
          type="checkbox"
          name="error"
          checked={draft.error === "true"}
          onChange={(event) => set("error", event.currentTarget.checked ? "true" : "")}
        />
        with errors
      </label>
      <button type="submit" class="main">
        Find
      </button>
      <a href="#traces">Clear</a>
    </form>
  );
}

function List({ data, query }: { data: Found; query: Query }) {
  const longest = Math.max(1, ...data.traces.map((row) => (row.fits ?? row).duration));
  const more = Math.min(1000, data.found);
  return (
    <>
      <p class="caption" id="found">
        {plural(data.found, "trace")}
        {data.traces.length < data.found && `, of which ${count(data.traces.length)} are listed`}
        {data.traces.length < more && (
          <>
            {" · "}
            <a href={link("traces", { ...query, limit: "1000" })}>list {count(more)}</a>
          </>
        )}
      </p>
      <table class="list" aria-describedby="found">
        <thead>
          <tr>
            <th>began (UTC)</th>
            <th>trace</th>
            {data.by_span && <th>span that fits</th>}
            <th class="number">took</th>
            <th />
            <th class="number">spans</th>
            <th class="number">errors</th>
            <th>services</th>
          </tr>
        </thead>
        <tbody>
          {data.traces.map((row) => (
            <Line key={row.id} row={row} longest={longest} bySpan={data.by_span} />
          ))}
        </tbody>
      </table>
    </>
  );
}

function Line({ row, longest, bySpan }: { row: Row; longest: number; bySpan: boolean }) {
  const took = (row.fits ?? row).duration;
  return (
    <tr class={row.errors ? "failed" : ""}>
      <td class="mono">{time(row.start)}</td>
      <td class="name">
        <a href={link(`trace/${row.id}`)}>
          <i class={`dot ${colour(row.service)}`} />
          {row.service} <b>{row.name}</b>
        </a>
      </td>
      {bySpan && (
        <td class="name">
          {row.fits && (
            <>
              <i class={`dot ${colour(row.fits.service)}`} />
              {row.fits.service} <b>{row.fits.name}</b>
            </>
          )}
        </td>
      )}
      <td class="number mono">{duration(took)}</td>
      <td class="meter">
        <i style={{ width: `${(100 * took) / longest}%` }} />
      </td>
      <td class="number">{count(row.spans)}</td>
      <td class="number">{row.errors > 0 && <span class="error">{count(row.errors)}</span>}</td>
      <td class="name">
        {row.services.join(", ")}
        {row.services_more > 0 && ` and ${row.services_more} more`}
      </td>
    </tr>
  );
}
