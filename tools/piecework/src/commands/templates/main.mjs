// Deploy with `piecework deploy .`, run with `piecework call NAME '{"name": "Ada"}'`.

export default async (event, context) => {
  // What is logged goes to the job's logs and never into the output.
  console.log("job", context.job_id);
  const name = event?.name ?? "world";
  return { hello: name };
};
