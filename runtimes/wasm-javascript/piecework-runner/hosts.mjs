// The part of UTS 46 that `URL` asks of the package tr46, for hosts in ASCII. Others are trapped: the tables that they take
// would be larger than the rest of the component.

import { touched } from "./touch.mjs";

export function toASCII(domain) {
  if (/[^\x00-\x7f]/.test(domain) || /(^|\.)xn--/i.test(domain)) touched("URL with a host beyond ASCII");
  return domain.toLowerCase();
}

export function toUnicode(domain) {
  return { domain: toASCII(domain), error: false };
}
