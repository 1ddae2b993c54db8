// Bytes as base64 and back.

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

export function base64(bytes) {
  if (typeof bytes.toBase64 === "function") return bytes.toBase64();
  const parts = [];
  let index = 0;
  for (; index + 2 < bytes.length; index += 3) {
    const word = (bytes[index] << 16) | (bytes[index + 1] << 8) | bytes[index + 2];
    parts.push(ALPHABET[word >> 18] + ALPHABET[(word >> 12) & 63] + ALPHABET[(word >> 6) & 63] + ALPHABET[word & 63]);
  }
  if (index + 1 === bytes.length) {
    parts.push(ALPHABET[bytes[index] >> 2] + ALPHABET[(bytes[index] & 3) << 4] + "==");
  } else if (index + 2 === bytes.length) {
    const word = (bytes[index] << 8) | bytes[index + 1];
    parts.push(ALPHABET[word >> 10] + ALPHABET[(word >> 4) & 63] + ALPHABET[(word & 15) << 2] + "=");
  }
  return parts.join("");
}

export function fromBase64(text) {
  const clean = text.replace(/={1,2}$/, "");
  if (clean.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(clean)) throw new RangeError("the text is not base64");
  const bytes = new Uint8Array(Math.floor((clean.length * 3) / 4));
  let at = 0;
  let word = 0;
  let bits = 0;
  for (const letter of clean) {
    word = (word << 6) | ALPHABET.indexOf(letter);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = (word >> bits) & 255;
    }
  }
  return bytes;
}
