// Greets by name and counts the letters of it.

export default async function (event, context) {
  const name = nameOf(event);
  console.log(`job ${context.job_id} greets ${name}`);
  return { message: `Hello, ${name}!`, letters: (name.match(/\p{L}/gu) ?? []).length, language: "javascript" };
}

/** The input's `name`, or `?name=` when called by URL; `world` if there is neither. */
function nameOf(event) {
  return String(event?.name || event?.query?.name || "world");
}
