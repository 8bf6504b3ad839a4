// What is shown is in the hash of the URL, so that every view is a link: `#traces?service=ufes&min=10ms`, `#trace/ID?span=ID`.

import { useEffect, useState } from "preact/hooks";

export type Query = Record<string, string>;

export interface Route {
  view: string;
  /** What stands behind the view's name. */
  rest: string;
  query: Query;
}

export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const [view = "", rest = ""] = path.split("/", 2);
  return { view: view || "traces", rest, query: Object.fromEntries(new URLSearchParams(query)) };
}

export function link(path: string, query: Query = {}): string {
  const set = Object.entries(query).filter(([, value]) => value !== "");
  return `#${path}${set.length ? `?${new URLSearchParams(set)}` : ""}`;
}

/** The query of an API call. */
export function search(query: Query): string {
  return link("", query).slice(1);
}

/** Goes on to another view; `replace` leaves no step to go back to. */
export function go(path: string, query: Query = {}, replace = false): void {
  if (replace) {
    history.replaceState(null, "", link(path, query));
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = link(path, query);
  }
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => setRoute(parse(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
