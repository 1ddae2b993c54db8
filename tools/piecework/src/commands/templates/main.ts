// Deploy with `piecework deploy .`, run with `piecework call NAME '{"name": "Ada"}'`. Types are removed, not checked.

type Event = { name?: string };
type Context = { job_id: string };

export default async (event: Event, context: Context) => {
  // What is logged goes to the job's logs and never into the output.
  console.log("job", context.job_id);
  const name: string = event?.name ?? "world";
  return { hello: name };
};
