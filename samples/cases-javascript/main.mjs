// Writes a phrase in several cases; shows a small package from package.json.

import { camelCase, kebabCase, snakeCase } from "change-case";

export default async function (event) {
  const phrase = String(event?.phrase ?? "Hello great world");
  return { camel: camelCase(phrase), kebab: kebabCase(phrase), snake: snakeCase(phrase) };
}
