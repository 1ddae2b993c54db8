// An account whose key is made in this browser: what the ledger wants signed to register it. docs/ledger-format.md has the encoding.

import { words } from "../messages";
import { get, post, Refused } from "./api";
import { hexOf, messageOf, words32 } from "./bytes";
import { forget, keepFirst, keptNames, newKey } from "./key";

const IV = words32("6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19");
const ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const COLUMNS_AND_DIAGONALS = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] as const;
/** One block is all there is: chunk's start and end, and the root. */
const ONLY_BLOCK = 1 | 2 | 8;
const [CONTEXT, MATERIAL] = [32, 64];

const turned = (word: number, by: number) => (word >>> by) | (word << (32 - by));

/** BLAKE3 of one block of at most 64 bytes. */
function blake3(key: Uint32Array, bytes: Uint8Array, flags: number): Uint32Array {
  const block = new Uint8Array(64);
  block.set(bytes);
  const view = new DataView(block.buffer);
  let m = Array.from({ length: 16 }, (_, nth) => view.getUint32(nth * 4, true));
  const v = Uint32Array.of(...key, ...IV.subarray(0, 4), 0, 0, bytes.length, flags | ONLY_BLOCK);
  const at = (index: number) => v[index] ?? 0;
  for (let round = 0; round < 7; round += 1) {
    for (const [nth, [a, b, c, d]] of COLUMNS_AND_DIAGONALS.entries()) {
      for (const [half, [x, y]] of ([[16, 12], [8, 7]] as const).entries()) {
        v[a] = at(a) + at(b) + (m[2 * nth + half] ?? 0);
        v[d] = turned(at(d) ^ at(a), x);
        v[c] = at(c) + at(d);
        v[b] = turned(at(b) ^ at(c), y);
      }
    }
    m = ORDER.map((from) => m[from] ?? 0);
  }
  return Uint32Array.from({ length: 8 }, (_, nth) => at(nth) ^ at(nth + 8));
}

/** The 20 bytes of the id of the account that this key registers. */
export function accountOf(publicKey: Uint8Array): Uint8Array {
  const tag = blake3(IV, new TextEncoder().encode("piecework 2026 account id"), CONTEXT);
  const digest = blake3(tag, publicKey, MATERIAL);
  const bytes = new DataView(new ArrayBuffer(32));
  digest.forEach((word, nth) => bytes.setUint32(nth * 4, word, true));
  return new Uint8Array(bytes.buffer, 0, 20);
}

export interface Registration {
  public_key: string;
  registration: string;
}

/** Of a developer, who may be a provider as well; by nobody sponsored, and nobody's. */
export async function registrationOf(pair: CryptoKeyPair, network: string, name: string, isProvider: boolean): Promise<Registration> {
  const key = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const text = new TextEncoder().encode(name);
  const transaction = new Uint8Array([
    ...accountOf(key),
    // The nonce, which is 0, then the kind of action: the first is to register.
    ...new Uint8Array(8), 0,
    text.length, 0, 0, 0, ...text,
    // Developer, provider, peer, controller; then no sponsor and no owner.
    1, isProvider ? 1 : 0, 0, 0, 0, 0,
  ]);
  const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, messageOf("transaction", network, transaction)));
  return { public_key: hexOf(key), registration: hexOf(transaction) + hexOf(key) + hexOf(signature) };
}

/** Makes a key, keeps it in this browser, and registers an account of it. */
export async function register(name: string, invite: string | null, isProvider: boolean): Promise<CryptoKey> {
  const isHere = () => new Refused(0, { code: "portal.key_is_here", message: words.keyExists, field: "name" });
  if ((await keptNames()).includes(name)) throw isHere();
  const { network } = await get("/ledger/status");
  const pair = await newKey();
  // Before it is used: whoever loses the key loses the account. What is kept for good no browser clears for want of space.
  await navigator.storage?.persist().catch(() => false);
  await keepFirst(name, pair.privateKey).catch((error: unknown) => {
    throw error instanceof DOMException && error.name === "ConstraintError" ? isHere() : error;
  });
  const roles: ("developer" | "provider")[] = isProvider ? ["developer", "provider"] : ["developer"];
  try {
    await post("/accounts", { name, invite, roles, ...(await registrationOf(pair, network, name, isProvider)) }, { withinMs: 60_000 });
  } catch (error) {
    // Without an answer it may be registered all the same.
    if (error instanceof Refused && error.status >= 400 && error.status < 500) await forget(name);
    throw error;
  }
  return pair.privateKey;
}
