/**
 * State in the address: `#/story?photo=sample1&setting=…&compare=…`. It stands in the fragment, which browsers keep to
 * themselves. The name of a person's own file is never part of it.
 */
import { type Signal, signal } from '@preact/signals';

/** Pages there are. */
export type View = 'story' | 'server' | 'report';

/** What the address says. */
export interface Route {
  readonly view: View;
  /** Name of a sample photo. */
  readonly photo?: string;
  /** Id of a bundle, or 'clean'. */
  readonly setting?: string;
  /** Id of the other setting where two are compared. */
  readonly compare?: string;
}

const VIEWS: readonly string[] = ['story', 'server', 'report'];
const KEYS = ['photo', 'setting', 'compare'] as const;

/** The current route. */
export const route: Signal<Route> = signal(parse(location.hash));

/** Changes the address; `push` makes a step that the back button undoes. */
export function go(change: { readonly [Key in keyof Route]?: Route[Key] | undefined }, push = false): void {
  const wanted = { ...route.value, ...change };
  const hash = format(wanted as Route);
  if (hash === location.hash) return;
  if (push) history.pushState(null, '', hash);
  else history.replaceState(null, '', hash);
  route.value = parse(hash);
}

/** The address of a page with the state of the others kept. */
export function linkTo(view: View): string {
  return format({ ...route.value, view });
}

/**
 * Follows the back button and edited addresses.
 * @param onChange told what the address said before, after each change that the page did not make itself
 */
export function followAddress(onChange: (before: Route) => void): void {
  for (const event of ['hashchange', 'popstate']) {
    addEventListener(event, () => {
      const before = route.value;
      if (format(before) === location.hash) return;
      route.value = parse(location.hash);
      onChange(before);
    });
  }
}

function parse(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const values = new URLSearchParams(query);
  const rest = Object.fromEntries(KEYS.flatMap((key) => (values.get(key) ? [[key, values.get(key)]] : [])));
  return { view: (VIEWS.includes(path) ? path : 'story') as View, ...rest };
}

function format(value: Route): string {
  const query = KEYS.flatMap((key) =>
    value[key] ? [`${key}=${encodeURIComponent(value[key]).replace(/%2F/g, '/')}`] : [],
  );
  return `#/${value.view}${query.length === 0 ? '' : `?${query.join('&')}`}`;
}
