import json


def lambda_handler(event, context):
    name = (event.get("queryStringParameters") or {}).get("name", "nobody")
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"hello": name, "ms_left": context.get_remaining_time_in_millis()}),
    }
