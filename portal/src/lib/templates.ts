// What a new function begins with.

export interface Template {
  id: string;
  name: string;
  language: string;
  what: string;
  code: string;
  input: string;
}

export const templates: Template[] = [
  {
    id: "python",
    name: "Python",
    language: "python",
    what: "An event in, a value out.",
    code: `def handler(event, context):
    name = (event or {}).get("name") or "world"
    print(f"job {context.job_id} greets {name}")
    return {"message": f"Hello, {name}!"}
`,
    input: `{"name": "Ada"}`,
  },
  {
    id: "javascript",
    name: "JavaScript",
    language: "javascript",
    what: "An event in, a value out.",
    code: `export default async function (event, context) {
  const name = event?.name ?? "world";
  console.log(\`job \${context.job_id} greets \${name}\`);
  return { message: \`Hello, \${name}!\` };
}
`,
    input: `{"name": "Ada"}`,
  },
  {
    id: "typescript",
    name: "TypeScript",
    language: "typescript",
    what: "Types are removed when you deploy.",
    code: `interface Event {
  name?: string;
}

export default async function (event: Event): Promise<{ message: string }> {
  return { message: \`Hello, \${event?.name ?? "world"}!\` };
}
`,
    input: `{"name": "Ada"}`,
  },
  {
    id: "page",
    name: "Web page",
    language: "javascript",
    what: "Answers its URL with HTML.",
    code: `export default async function (event) {
  const name = event?.query?.name ?? "world";
  const safe = name.replace(/[&<>"]/g, (character) => \`&#\${character.charCodeAt(0)};\`);
  return {
    status: 200,
    headers: { "content-type": "text/html; charset=utf-8" },
    body: \`<!doctype html><title>Hello</title><h1>Hello, \${safe}!</h1>\`,
  };
}
`,
    input: `{"query": {"name": "Ada"}}`,
  },
];
