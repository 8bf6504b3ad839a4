// Everything that is known of one span.

import type { Attribute, Span, Trace } from "./api";
import { count, duration } from "./format";
import { link } from "./route";

interface Props {
  trace: Trace;
  span: Span;
  close: () => void;
  select: (at: number) => void;
}

export function Details({ trace, span, close, select }: Props) {
  const parent = span.parent === null ? undefined : trace.spans[span.parent];
  const critical = span.critical.filter(([, , onTheWay]) => !onTheWay);
  const own = critical.reduce((sum, [from, to]) => sum + to - from, 0);
  return (
    <aside class="details" aria-label="The chosen span">
      <button type="button" class="close" aria-label="Close" onClick={close}>
        ×
      </button>
      <h2>{span.name}</h2>
      <p>
        {span.service} (process {span.process[0]}) · {span.kind}
      </p>
      <p>
        {duration(span.duration)}, begins at +{duration(span.start)}
        {critical.length > 0 && <>, {duration(own)} of it on the critical path</>}
      </p>
      {span.error !== null && <p class="error">failed{span.error && `: ${span.error}`}</p>}
      <p>
        {parent && span.parent !== null ? (
          <>
            parent{" "}
            <button type="button" class="link" onClick={() => span.parent !== null && select(span.parent)}>
              {parent.name}
            </button>
            {span.remote && ", in another process"}
          </>
        ) : span.parent_id ? (
          <>the parent {span.parent_id} is not here</>
        ) : (
          "no parent"
        )}
      </p>
      <Attributes title="Attributes" of={span.attributes} find />
      {span.events.map((event) => (
        <Attributes title={`${event.name} at +${duration(event.at)}`} of={event.attributes} />
      ))}
      {span.links.map((other) => (
        <div class="link-to">
          <h3>
            Link to{" "}
            {other.kept ? (
              <a href={link(`trace/${other.trace}`, { span: other.span })}>span {other.span}</a>
            ) : (
              <>span {other.span}, of a trace that is not here</>
            )}
          </h3>
          <Attributes of={other.attributes} />
        </div>
      ))}
      <Attributes title="Process" of={span.resource} find />
      <p class="mono">span {span.id}</p>
    </aside>
  );
}

function Attributes({ title, of, find }: { title?: string; of: Attribute[]; find?: boolean }) {
  return (
    <>
      {title && <h3>{title}</h3>}
      {of.length === 0 && title && <p class="caption">none</p>}
      <dl>
        {of.map(([key, text, bytes]) => (
          <>
            <dt>
              {find && bytes === undefined ? (
                <a href={link("traces", { attr: `${key}=${text}` })} title="Find traces that have the same">
                  {key}
                </a>
              ) : (
                key
              )}
            </dt>
            <dd>
              {text}
              {bytes !== undefined && <em> … {count(bytes)} bytes; a download has all</em>}
            </dd>
          </>
        ))}
      </dl>
    </>
  );
}
