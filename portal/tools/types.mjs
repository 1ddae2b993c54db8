// Writes src/lib/openapi.d.ts, the types of the HTTP API.

import { readFileSync, writeFileSync } from "node:fs";
import openapi, { astToString } from "openapi-typescript";

const document = JSON.parse(readFileSync(new URL("../../docs/openapi.json", import.meta.url), "utf8"));
const types = astToString(await openapi(document, { alphabetize: true, defaultNonNullable: false }));
writeFileSync(new URL("../src/lib/openapi.d.ts", import.meta.url), types);
