// Writes src/lib/openapi.d.ts, the types of the HTTP API. Without the names of the operations, which different resources share.

import { readFileSync, writeFileSync } from "node:fs";
import openapi, { astToString } from "openapi-typescript";

const document = JSON.parse(readFileSync(new URL("../../docs/openapi.json", import.meta.url), "utf8"));
for (const path of Object.values(document.paths)) for (const operation of Object.values(path)) delete operation.operationId;
const types = astToString(await openapi(document, { alphabetize: true, defaultNonNullable: false }));
writeFileSync(new URL("../src/lib/openapi.d.ts", import.meta.url), types);
