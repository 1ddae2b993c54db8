// How far back metrics are shown, by a name that is in the address.

export function range(name: string | null): { from: string; step: string } {
  const hours = name === "week" ? 168 : name === "day" ? 24 : 1;
  const step = name === "week" ? "hour" : "minute";
  const end = Math.floor(Date.now() / 60_000) * 60_000;
  return { from: new Date(end - hours * 3_600_000).toISOString(), step };
}

const STEPS_MS: Record<string, number> = { minute: 60_000, hour: 3_600_000, day: 86_400_000 };
/** As many as the server gives at the most. */
const STEPS_MAX = 1_500;

/** The beginnings of all steps of an answer, the empty ones too. */
export function stepsOf(of: { from: string; to: string; step: string; points: { at: string }[] }): string[] {
  const step = STEPS_MS[of.step];
  const [from, to] = [Date.parse(of.from), Date.parse(of.to)];
  if (!step || Number.isNaN(from) || Number.isNaN(to)) return of.points.map((point) => point.at);
  const steps: string[] = [];
  for (let time = Math.floor(from / step) * step; time < to && steps.length < STEPS_MAX; time += step) {
    steps.push(new Date(time).toISOString());
  }
  return steps;
}
