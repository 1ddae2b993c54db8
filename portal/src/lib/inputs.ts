// Inputs of the runs that this window began, by job. The platform keeps none; neither does the browser after a reload.

const KEPT_MAX = 50;
const CHARACTERS_MAX = 100_000;
const inputs = new Map<string, string>();

export function keepInput(job: string, text: string): void {
  if (text.length > CHARACTERS_MAX) return;
  inputs.set(job, text);
  for (const oldest of inputs.keys()) {
    if (inputs.size <= KEPT_MAX) break;
    inputs.delete(oldest);
  }
}

export function inputOf(job: string): string | undefined {
  return inputs.get(job);
}
