"""Deploy with `piecework deploy .`, run with `piecework call NAME '{"name": "Ada"}'`."""


def handler(event, context):
    # What is printed goes to the job's logs and never into the output.
    print("job", context.job_id)
    name = (event or {}).get("name", "world")
    return {"hello": name}
