"""Greets by name and counts the letters of it."""


def handler(event, context):
    name = name_of(event)
    print(f"job {context.job_id} greets {name}")
    return {"message": f"Hello, {name}!", "letters": sum(map(str.isalpha, name)), "language": "python"}


def name_of(event):
    """The input's `name`, or `?name=` when called by URL; `world` if there is neither."""
    event = event if isinstance(event, dict) else {}
    query = event.get("query") or {}
    return str(event.get("name") or query.get("name") or "world")
