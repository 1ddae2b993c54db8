// Tables as files for other programs: RFC 4180, as `piecework statement --csv` writes them.

/** A program for tables would compute what begins like this. Whole numbers are numbers. */
const FORMULA = /^[=+\-@\t\r]/;

/** One field. What a stranger wrote is text: an apostrophe keeps a program from computing it. */
export function cell(value: string | number | bigint | null | undefined): string {
  const text = String(value ?? "");
  const safe = FORMULA.test(text) && !/^-?\d+$/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** With a line of names first; each line ends with CR and LF. */
export function csv(names: string[], lines: (string | number | bigint | null | undefined)[][]): string {
  return [names, ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

/** Hands a file to the browser, as a download. */
export function download(name: string, content: BlobPart, type = "application/octet-stream"): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}
