// How many there are of each duration; a bar is a button that looks for those.

import type { Bar } from "./api";
import { count, duration, plural } from "./format";

interface Props {
  bars: Bar[];
  caption: string;
  choose: (min: number, max: number) => void;
}

export function Histogram({ bars, caption, choose }: Props) {
  const most = Math.max(1, ...bars.map((bar) => bar.count));
  const first = bars[0];
  const last = bars[bars.length - 1];
  return (
    <figure class="histogram">
      <div class="bars">
        {bars.map((bar) => {
          const label = `${duration(bar.from)} to ${duration(bar.to)}: ${plural(bar.count, "trace")}`;
          return (
            <button
              key={bar.from}
              type="button"
              title={label}
              aria-label={label}
              disabled={bar.count === 0}
              onClick={() => choose(bar.from, bar.to - 1)}
            >
              <i style={{ height: `${bar.count === 0 ? 0 : Math.max(4, (100 * bar.count) / most)}%` }} />
            </button>
          );
        })}
      </div>
      <figcaption>
        <span>{first && duration(first.from)}</span>
        <span>
          {caption}; the highest bar is {count(most)}
        </span>
        <span>{last && duration(last.to)}</span>
      </figcaption>
    </figure>
  );
}
