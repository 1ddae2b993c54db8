// Bundles as the API shows and takes them: tar archives in base64, of plain files.

export interface File {
  path: string;
  bytes: Uint8Array;
  /** Absent where it is no text. */
  text: string | undefined;
}

const BLOCK = 512;
/** Above this an editor is of no use. */
const TEXT_BYTES_MAX = 512 * 1024;

export function bytesOf(base64: string): Uint8Array {
  const text = atob(base64);
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

export function base64Of(bytes: Uint8Array): string {
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  return btoa(text);
}

function textOf(bytes: Uint8Array): string | undefined {
  if (bytes.length > TEXT_BYTES_MAX) return undefined;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.includes("\0") ? undefined : text;
  } catch {
    return undefined;
  }
}

/** The files, and whether there is anything else in the archive, which {@link tar} would lose. */
export function untar(archive: Uint8Array): { files: File[]; isWhole: boolean } {
  const files: File[] = [];
  const decoder = new TextDecoder();
  const string = (start: number, length: number) => decoder.decode(archive.subarray(start, start + length)).split("\0")[0] ?? "";
  let isWhole = true;
  let offset = 0;
  while (offset + BLOCK <= archive.length && archive[offset] !== 0) {
    const size = parseInt(string(offset + 124, 12).trim(), 8);
    const kind = String.fromCharCode(archive[offset + 156] ?? 0);
    if (!Number.isFinite(size) || size < 0 || offset + BLOCK + size > archive.length) return { files, isWhole: false };
    const prefix = string(offset + 257, 5) === "ustar" ? string(offset + 345, 155) : "";
    const path = (prefix ? `${prefix}/` : "") + string(offset, 100);
    if (kind === "0" || kind === "\0") {
      const bytes = archive.slice(offset + BLOCK, offset + BLOCK + size);
      files.push({ path, bytes, text: textOf(bytes) });
    } else if (kind !== "5") isWhole = false;
    offset += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  files.sort((a, b) => (a.path < b.path ? -1 : 1));
  return { files, isWhole };
}

/** Of files whose paths have at most 100 bytes; `undefined` otherwise. */
export function tar(files: { path: string; bytes: Uint8Array }[]): Uint8Array | undefined {
  const encoder = new TextEncoder();
  const parts: Uint8Array[] = [];
  for (const { path, bytes } of files) {
    const name = encoder.encode(path);
    if (name.length > 100) return undefined;
    const header = new Uint8Array(BLOCK);
    const put = (text: string, at: number) => header.set(encoder.encode(text), at);
    header.set(name, 0);
    put("0000644\0", 100);
    put("0000000\0", 108);
    put("0000000\0", 116);
    put(`${bytes.length.toString(8).padStart(11, "0")}\0`, 124);
    put("00000000000\0", 136);
    put("        ", 148);
    put("0", 156);
    put("ustar\u000000", 257);
    const sum = header.reduce((all, byte) => all + byte, 0);
    put(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    parts.push(header, bytes, new Uint8Array((BLOCK - (bytes.length % BLOCK)) % BLOCK));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  const whole = new Uint8Array(parts.reduce((all, part) => all + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
