// What differs between two texts, line by line.

export interface Line {
  kind: "same" | "added" | "gone";
  text: string;
  /** Where it is in the old and in the new text, from 1. */
  from?: number;
  to?: number;
}

/** Beyond this many lines that differ, the middle is shown as replaced. */
const CELLS_MAX = 4_000_000;

/** The longest common subsequence of the lines between a common beginning and a common end. */
export function diff(before: string, after: string): Line[] {
  const [a, b] = [lines(before), lines(after)];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const out: Line[] = [];
  const same = (text: string, from: number, to: number) => out.push({ kind: "same", text, from, to });
  for (let at = 0; at < head; at += 1) same(a[at]!, at + 1, at + 1);
  middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail), head, out);
  for (let at = tail; at > 0; at -= 1) same(a[a.length - at]!, a.length - at + 1, b.length - at + 1);
  return out;
}

function lines(text: string): string[] {
  const all = text.split("\n");
  if (all.at(-1) === "") all.pop();
  return all;
}

function middle(a: string[], b: string[], head: number, out: Line[]): void {
  const width = b.length + 1;
  const common = a.length * b.length <= CELLS_MAX ? new Uint32Array((a.length + 1) * width) : undefined;
  if (common) {
    for (let i = a.length - 1; i >= 0; i -= 1) {
      for (let j = b.length - 1; j >= 0; j -= 1) {
        const at = i * width + j;
        common[at] = a[i] === b[j] ? common[at + width + 1]! + 1 : Math.max(common[at + width]!, common[at + 1]!);
      }
    }
  }
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (common && i < a.length && j < b.length && a[i] === b[j]) {
      out.push({ kind: "same", text: a[i]!, from: head + i + 1, to: head + j + 1 });
      [i, j] = [i + 1, j + 1];
    } else if (i < a.length && (j >= b.length || !common || common[(i + 1) * width + j]! >= common[i * width + j + 1]!)) {
      out.push({ kind: "gone", text: a[i]!, from: head + i + 1 });
      i += 1;
    } else {
      out.push({ kind: "added", text: b[j]!, to: head + j + 1 });
      j += 1;
    }
  }
}

/** Runs of unchanged lines, but for a few beside each change, become a number. */
export function folded(all: Line[], around = 3): (Line | { skipped: number })[] {
  const near = new Uint8Array(all.length);
  all.forEach((line, at) => {
    if (line.kind !== "same") near.fill(1, Math.max(0, at - around), at + around + 1);
  });
  const out: (Line | { skipped: number })[] = [];
  let skipped = 0;
  all.forEach((line, at) => {
    if (near[at]) {
      if (skipped > 0) out.push({ skipped });
      skipped = 0;
      out.push(line);
    } else skipped += 1;
  });
  if (skipped > 0) out.push({ skipped });
  return out;
}
