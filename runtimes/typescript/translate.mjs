// Makes JavaScript of a bundle's TypeScript files. Runs as a function in the wasm sandbox: the files are strangers'.
//
// The types are removed and nothing moves to another line. Beside `x.ts` comes `x.ts.mjs`; where `x.ts` is CommonJS that only hands on
// what is in `x.ts.cjs`. Imports of other files are written with the names that these have then, so that Node and the wasm component
// resolve them without knowing of TypeScript.

import { transform } from "sucrase";
import { parse } from "sucrase/dist/esm/parser/index";
import { ContextualKeyword } from "sucrase/dist/esm/parser/tokenizer/keywords";
import { TokenType as tt } from "sucrase/dist/esm/parser/tokenizer/types";

const TYPESCRIPT = /\.(?:[mc]?ts|tsx)$/;
const DECLARATIONS = /\.d\.[mc]?ts$/;
// What a specifier may leave out, in the order in which it is tried.
const ENDINGS = [".ts", ".tsx", ".mts", ".cts", ".mjs", ".js", ".cjs", ".json"];
// TypeScript lets an import name the JavaScript that is made of a file.
const MADE_OF = { ".js": [".ts", ".tsx"], ".mjs": [".mts"], ".cjs": [".cts"], ".jsx": [".tsx"] };

class Refused extends Error {
  constructor(kind, line, message) {
    super(message);
    Object.assign(this, { kind, line });
  }
}

// `{outputs: {path: code}}` or `{refused: {kind, file, line, message}}`.
export default function translate({ files, others, entry }) {
  const all = new Set([...Object.keys(files), ...others]);
  const settings = files["tsconfig.json"] ?? "";
  const made = new Map();
  for (const [path, text] of Object.entries(files)) {
    if (isSource(path)) made.set(path, tried(path, text, settings));
  }
  const outputs = {};
  for (const [path, one] of made) {
    if (!one.refused) Object.assign(outputs, written(path, one, { all, made }));
  }
  // What the function does not import, such as its tests, may be as it likes.
  for (const path of reached(entry, made)) {
    const { refused } = made.get(path);
    if (refused) return { refused: { file: path, ...refused } };
  }
  return { outputs };
}

const isSource = (path) => TYPESCRIPT.test(path) && !DECLARATIONS.test(path);

function tried(path, text, settings) {
  try {
    return translated(path, text, settings);
  } catch (error) {
    if (error instanceof Refused) return { refused: { kind: error.kind, line: error.line, message: error.message } };
    // Of the parser.
    const line = error.loc?.line;
    if (line === undefined && !(error instanceof SyntaxError)) throw error;
    return { refused: { kind: "syntax", line: line ?? 1, message: error.message.replace(/ \(\d+:\d+\)$/, "") } };
  }
}

function translated(path, text, settings) {
  const isJsx = path.endsWith(".tsx");
  const source = text.replace(/^\ufeff/, "");
  refuseWhatIsNotTypes(source, parse(source, isJsx, true, false).tokens);
  const options = { transforms: isJsx ? ["typescript", "jsx"] : ["typescript"], disableESTransforms: true };
  if (isJsx) Object.assign(options, jsxOf(source, settings), { production: true });
  const { code } = transform(source, options);
  const { tokens } = parse(code, false, false, false);
  return { code, specifiers: specifiersIn(code, tokens), isCommonJs: isCommonJs(path, code, tokens), to: new Set() };
}

// A comment before a file's code says where its JSX comes from, else the compiler's own settings, which are JSON with comments: a module
// with a JSX runtime, or the name of a function.
function jsxOf(source, settings) {
  const before = commentsBefore(source);
  const named = (name) => new RegExp(`@${name}\\s+([^\\s*]+)`).exec(before)?.[1];
  const set = (name) => new RegExp(`"${name}"\\s*:\\s*"([^"\\\\]+)"`).exec(settings)?.[1];
  const from = (module) => ({ jsxRuntime: "automatic", jsxImportSource: module ?? "react" });
  const by = (call, fragment) => ({ jsxRuntime: "classic", jsxPragma: call, jsxFragmentPragma: fragment ?? "React.Fragment" });
  if (named("jsxImportSource")) return from(named("jsxImportSource"));
  if (named("jsx")) return by(named("jsx"), named("jsxFrag"));
  if (set("jsxFactory")) return by(set("jsxFactory"), named("jsxFrag") ?? set("jsxFragmentFactory"));
  return from(set("jsxImportSource"));
}

// One after the other: a pattern for all of them at once could take for ever.
function commentsBefore(source) {
  let at = 0;
  for (;;) {
    at += /^\s*/.exec(source.slice(at, at + 10_000))[0].length;
    const ends = source.startsWith("//", at) ? "\n" : source.startsWith("/*", at) ? "*/" : null;
    const end = ends === null ? -1 : source.indexOf(ends, at + 2);
    if (end < 0) return source.slice(0, at);
    at = end + ends.length;
  }
}

function lineOf(source, token) {
  let line = 1;
  for (let at = source.indexOf("\n"); at >= 0 && at < token.start; at = source.indexOf("\n", at + 1)) line += 1;
  return line;
}

// What changes a program's meaning and is not translated.
function refuseWhatIsNotTypes(source, tokens) {
  const refuse = (token, message) => {
    throw new Refused("unsupported", lineOf(source, token), message);
  };
  for (let at = 0; at < tokens.length; at++) {
    const token = tokens[at];
    if (token.type === tt.at) {
      refuse(token, "decorators are not supported; call the decorator as a function, or deploy the output of your compiler");
    }
    if (token.type === tt._export && tokens[at + 1]?.type === tt._import && tokens[at + 3]?.type === tt.eq) {
      refuse(token, "`export import` is not supported; use `import` and `export`");
    }
    const isModule = isBlockOf(source, tokens, at);
    if (isModule && !isDeclared(tokens, at) && holdsValues(source, tokens, at)) {
      refuse(token, "a namespace with values is not supported; use a module of its own, or an object");
    }
  }
}

const textOf = (source, token) => source.slice(token.start, token.end);

// `namespace a.b {` or `module a {`, and not a variable of this name.
function isBlockOf(source, tokens, at) {
  if (!["namespace", "module"].includes(textOf(source, tokens[at]))) return false;
  let next = at + 1;
  if (tokens[next]?.type !== tt.name) return false;
  while (tokens[next + 1]?.type === tt.dot) next += 2;
  return tokens[next + 1]?.type === tt.braceL;
}

const isDeclared = (tokens, at) => [1, 2].some((back) => tokens[at - back]?.contextualKeyword === ContextualKeyword._declare || tokens[at - back]?.type === tt._declare);

const OF_TYPES = new Set(["export", "interface", "type", "declare", "namespace", "module", "import"]);

// Whether a statement in its braces does not begin as those do that have only types.
function holdsValues(source, tokens, at) {
  let depth = 0;
  for (let next = at; next < tokens.length; next++) {
    const { type } = tokens[next];
    const before = tokens[next - 1];
    if (type === tt.braceR && --depth === 0) return false;
    const isAtTop = depth === 1 && type !== tt.braceR;
    const begins = isAtTop && (before.type === tt.braceL || before.type === tt.semi || before.type === tt.braceR || (source.slice(before.end, tokens[next].start).includes("\n") && isWord(source, tokens[next])));
    if (begins && type !== tt.semi && !OF_TYPES.has(textOf(source, tokens[next]))) return true;
    if (isAtTop && begins && textOf(source, tokens[next]) === "export" && !OF_TYPES.has(textOf(source, tokens[next + 1]))) return true;
    if (type === tt.braceL) depth += 1;
  }
  return true;
}

const isWord = (source, token) => /^[A-Za-z_$]/.test(textOf(source, token));

// The texts that name modules: start and end, with their quotes.
function specifiersIn(code, tokens) {
  const found = [];
  for (let at = 1; at < tokens.length; at++) {
    if (tokens[at].type !== tt.string) continue;
    const before = tokens[at - 1];
    const isNamed = before.contextualKeyword === ContextualKeyword._from || before.type === tt._import;
    const called = before.type === tt.parenL ? tokens[at - 2] : null;
    const isCalled = called && (called.type === tt._import || (called.type === tt.name && textOf(code, called) === "require" && tokens[at - 3]?.type !== tt.dot));
    if (isNamed || isCalled) found.push({ start: tokens[at].start, end: tokens[at].end });
  }
  return found;
}

// As a file says by its syntax; by its ending if that says nothing.
function isCommonJs(path, code, tokens) {
  if (path.endsWith(".mts")) return false;
  const isModule = tokens.some(({ type, scopeDepth }, at) => {
    const next = tokens[at + 1]?.type;
    return (type === tt._export && scopeDepth === 0) || (type === tt._import && next !== tt.parenL && next !== tt.dot) || (type === tt._import && next === tt.dot);
  });
  if (isModule) return false;
  if (path.endsWith(".cts")) return true;
  return tokens.some((token, at) => {
    if (token.type !== tt.name || tokens[at - 1]?.type === tt.dot) return false;
    const name = textOf(code, token);
    const next = tokens[at + 1]?.type;
    return (name === "require" && next === tt.parenL) || ((name === "module" || name === "exports") && next === tt.dot);
  });
}

function written(path, one, bundle) {
  const name = path.slice(path.lastIndexOf("/") + 1);
  let code = "";
  let from = 0;
  for (const { start, end } of one.specifiers) {
    const said = one.code.slice(start + 1, end - 1);
    const meant = resolved(path, said, bundle);
    if (meant === null) continue;
    if (bundle.made.has(meant)) one.to.add(meant);
    code += one.code.slice(from, start) + JSON.stringify(relative(path, loadedAs(meant, one, bundle)));
    from = end;
  }
  code += one.code.slice(from);
  // What Node shows in stacks.
  code += `\n//# sourceURL=file:///function/${path.split("/").map(encodeURIComponent).join("/")}\n`;
  if (!one.isCommonJs) return { [`${path}.mjs`]: code };
  const inner = JSON.stringify(`./${name}.cjs`);
  return { [`${path}.cjs`]: code, [`${path}.mjs`]: `export * from ${inner};\nexport { default } from ${inner};\n` };
}

// CommonJS requires CommonJS.
function loadedAs(path, { isCommonJs }, { made }) {
  const one = made.get(path);
  if (!one) return path;
  return isCommonJs && one.isCommonJs ? `${path}.cjs` : `${path}.mjs`;
}

// The file of the bundle that a relative specifier means; null for packages, and for what is not there.
function resolved(path, specifier, { all }) {
  if (!/^\.\.?(?:\/|$)/.test(specifier)) return null;
  const target = joined(path.split("/").slice(0, -1), specifier);
  if (target === null) return null;
  if (all.has(target)) return target;
  const ending = /\.[^./]+$/.exec(target)?.[0];
  const stem = ending ? target.slice(0, -ending.length) : target;
  const candidates = [...(MADE_OF[ending] ?? []).map((one) => stem + one), ...ENDINGS.map((one) => target + one), ...ENDINGS.map((one) => (target ? `${target}/index${one}` : `index${one}`))];
  return candidates.find((one) => all.has(one) && !DECLARATIONS.test(one)) ?? null;
}

function joined(parts, specifier) {
  for (const part of specifier.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) return null;
  }
  return parts.join("/");
}

function relative(from, to) {
  const here = from.split("/").slice(0, -1);
  const there = to.split("/");
  while (here.length && there.length > 1 && here[0] === there[0]) {
    here.shift();
    there.shift();
  }
  return here.length ? "../".repeat(here.length) + there.join("/") : `./${there.join("/")}`;
}

// The files that the entry imports, and those that these import.
function reached(entry, made) {
  const seen = new Set();
  const next = [entry];
  while (next.length) {
    const path = next.pop();
    if (seen.has(path) || !made.has(path)) continue;
    seen.add(path);
    next.push(...(made.get(path).to ?? []));
  }
  return seen;
}
