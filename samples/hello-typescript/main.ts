// Greets by name, in the words of the hour.

import type { Greeting } from "./lib/greeting";
import { Part, partOf } from "./lib/greeting";

interface Event {
  name?: string;
  hour?: number;
  query?: { name?: string };
}

export default async function (event: Event): Promise<Greeting> {
  const name = String(event?.name || event?.query?.name || "world");
  const part = partOf(event?.hour ?? 9);
  return { message: `Good ${Part[part].toLowerCase()}, ${name}!`, part } satisfies Greeting;
}
