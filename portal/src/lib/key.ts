// Keys of accounts that stay in this browser: WebCrypto has them and gives them to no script, not even this one.

import { post } from "./api";
import { bytesOfHex, hexOf, messageOf } from "./bytes";

const DATABASE = "piecework";
const KEYS = "keys";
/** What stands before the 32 bytes of an Ed25519 key in PKCS #8. */
const PKCS8 = "302e020100300506032b657004220420";

/** Whether this browser can sign; not over plain HTTP to another computer, and not old ones. */
export async function canSign(): Promise<boolean> {
  try {
    await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
    return true;
  } catch {
    return false;
  }
}

/** A new key, which nothing can read, not even this page; only its signatures leave the browser. */
export async function newKey(): Promise<CryptoKeyPair> {
  return (await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"])) as CryptoKeyPair;
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
/** Of a name that has none here yet: another tab may have been quicker. */
export async function keepFirst(name: string, key: CryptoKey): Promise<void> {
  await request((await keys("readwrite")).add(key, name));
}
export async function forget(name: string): Promise<void> {
  await request((await keys("readwrite")).delete(name));
}

/** The bytes that a login covers: name and challenge, each after its length. */
function loginMessage(network: string, name: string, challenge: string): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder();
  const text = (value: string) => {
    const bytes = encoder.encode(value);
    const whole = new Uint8Array(4 + bytes.length);
    new DataView(whole.buffer).setUint32(0, bytes.length, true);
    whole.set(bytes, 4);
    return whole;
  };
  return messageOf("login", network, new Uint8Array([...text(name), ...text(challenge)]));
}

async function signLogin(key: CryptoKey, network: string, name: string, challenge: string): Promise<string> {
  return hexOf(await crypto.subtle.sign("Ed25519", key, loginMessage(network, name, challenge)));
}

/** What opens a session: the server's challenge, signed. */
export async function answered(key: CryptoKey, name: string): Promise<{ name: string; challenge: string; signature: string }> {
  const { network, challenge } = await post("/sessions/challenges", { name });
  return { name, challenge, signature: await signLogin(key, network, name, challenge) };
}
