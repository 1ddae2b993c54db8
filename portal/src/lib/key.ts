// Keys of accounts that stay in this browser: WebCrypto has them and gives them to no script, not even this one.

const DATABASE = "piecework";
const KEYS = "keys";
/** What stands before the 32 bytes of an Ed25519 key in PKCS #8. */
const PKCS8 = "302e020100300506032b657004220420";

const bytesOfHex = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hexOf = (bytes: ArrayBuffer) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Whether this browser can sign; not over plain HTTP to another computer, and not old ones. */
export async function canSign(): Promise<boolean> {
  try {
    await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
    return true;
  } catch {
    return false;
  }
}

/** Of a key file of the command line: 64 hex digits. `undefined` if it is none. */
export async function keyFrom(text: string): Promise<CryptoKey | undefined> {
  const seed = text.trim();
  if (!/^[0-9a-f]{64}$/i.test(seed)) return undefined;
  return crypto.subtle.importKey("pkcs8", bytesOfHex(PKCS8 + seed), "Ed25519", false, ["sign"]);
}

function request<T>(of: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    of.onsuccess = () => resolve(of.result);
    of.onerror = () => reject(of.error);
  });
}

async function keys(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(KEYS);
  return (await request(opening)).transaction(KEYS, mode).objectStore(KEYS);
}

export async function keptNames(): Promise<string[]> {
  try {
    return (await request((await keys("readonly")).getAllKeys())).map(String);
  } catch {
    return [];
  }
}
export async function kept(name: string): Promise<CryptoKey | undefined> {
  return (await request((await keys("readonly")).get(name))) as CryptoKey | undefined;
}
export async function keep(name: string, key: CryptoKey): Promise<void> {
  await request((await keys("readwrite")).put(key, name));
}
export async function forget(name: string): Promise<void> {
  await request((await keys("readwrite")).delete(name));
}

/** The bytes that a login covers: domain, network, then name and challenge, each after its length. */
export function loginMessage(network: string, name: string, challenge: string): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder();
  const text = (value: string) => {
    const bytes = encoder.encode(value);
    const whole = new Uint8Array(4 + bytes.length);
    new DataView(whole.buffer).setUint32(0, bytes.length, true);
    whole.set(bytes, 4);
    return whole;
  };
  const parts = [encoder.encode("piecework/1/login\0"), bytesOfHex(network.slice(-64)), text(name), text(challenge)];
  const whole = new Uint8Array(parts.reduce((all, part) => all + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export async function signLogin(key: CryptoKey, network: string, name: string, challenge: string): Promise<string> {
  return hexOf(await crypto.subtle.sign("Ed25519", key, loginMessage(network, name, challenge)));
}
