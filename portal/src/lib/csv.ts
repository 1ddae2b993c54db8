// Tables as files for other programs: RFC 4180, as `piecework statement --csv` writes them.

/** A program for tables would compute what follows: at the beginning, or where some programs begin the next field. */
const BEFORE_FORMULA = /(^|[;\t\r\n]) *(?=[=+\-@\t\r])/g;

/** One field. What a stranger wrote is text: an apostrophe keeps a program from computing it. */
export function cell(value: string | number | bigint | null | undefined): string {
  const text = String(value ?? "");
  const safe = /^[+-]?\d+$/.test(text) ? text : text.replace(BEFORE_FORMULA, "$&'");
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
