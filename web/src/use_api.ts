// An answer of the server that is asked for again when its path or `tick` changes.

import { useEffect, useState } from "preact/hooks";
import { Refused, ask } from "./api";

export interface Answer<T> {
  /** The last answer, also while the next one is awaited. */
  data: T | null;
  error: Refused | null;
}

export function useApi<T>(path: string, tick: number): Answer<T> {
  const [answer, setAnswer] = useState<Answer<T> & { path: string }>({ data: null, error: null, path });
  useEffect(() => {
    const abort = new AbortController();
    ask<T>(path, abort.signal).then(
      (data) => setAnswer({ data, error: null, path }),
      (error: unknown) => {
        if (!(error instanceof Refused)) return;
        // What is known stays on the page.
        setAnswer((last) => ({ data: last.path === path ? last.data : null, error, path }));
      },
    );
    return () => abort.abort();
  }, [path, tick]);
  return answer;
}
