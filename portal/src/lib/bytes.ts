// Bytes as text, and what a signature covers.

export const bytesOfHex = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
export const hexOf = (bytes: ArrayBuffer | Uint8Array) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
/** Of 64 hex digits, the highest digit first. */
export const words32 = (hex: string) => Uint32Array.from(hex.match(/.{8}/g) ?? [], (word) => parseInt(word, 16));

/** The kind of what is signed, the network, and its encoding: a signature of one kind and network is none of another. */
export function messageOf(kind: "login" | "transaction", network: string, encoded: Uint8Array): Uint8Array<ArrayBuffer> {
  const tag = new TextEncoder().encode(`piecework/1/${kind}\0`);
  return new Uint8Array([...tag, ...bytesOfHex(network.slice(-64)), ...encoded]);
}
