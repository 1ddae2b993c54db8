"""AWS Lambda: the context object, and for calls at a URL the event and the answer of a Function URL, payload version 2.0.

https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
"""

import base64
import json
import time

from _piecework.request import Request, is_http, status_of

# As text go these; everything else is base64.
TEXTS = ("text/", "application/json", "application/xml", "application/javascript")
# An answer without a status is one in JSON, with this.
JSON = "application/json"


def adapter(target, settings, runner):
    def handler(event, context):
        given = Context(context, settings)
        if not is_http(event):
            return target(event, given)
        return http_answer(target(payload(Request(event, context), event, given), given))

    return handler


class Context:
    identity = None
    client_context = None

    def __init__(self, context, settings):
        self._context = context
        name, version = settings["name"], str(settings["version"])
        self.aws_request_id = context.job_id
        self.function_name = name
        self.function_version = version
        self.invoked_function_arn = "arn:aws:lambda:local:000000000000:function:%s" % name
        self.memory_limit_in_mb = str(settings.get("memory_mb", 128))
        self.log_group_name = "/aws/lambda/" + name
        self.log_stream_name = version

    def get_remaining_time_in_millis(self):
        return max(0, self._context.deadline_ms - int(time.time() * 1000))

    def __getattr__(self, name):
        # What any handler's context has: `job_id`, `deadline_ms`, `body` and so on.
        return getattr(self._context, name)


def joined(pairs):
    together = {}
    for name, value in pairs:
        together[name] = together[name] + "," + value if name in together else value
    return together


def payload(request, event, context):
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
    headers = joined(pair for pair in pairs if pair[0] != "cookie")
    cookies = [cookie.strip() for name, value in pairs if name == "cookie" for cookie in value.split(";")]
    domain = headers.get("host", "localhost")
    now = time.time()
    body = request.stream.read() if request.stream is not None else request.body
    made = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": request.raw_path,
        "rawQueryString": request.raw_query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": context.function_name,
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "http": {
                "method": request.method,
                "path": request.raw_path,
                "protocol": "HTTP/1.1",
                "sourceIp": request.client.get("address", ""),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": context.aws_request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        made["cookies"] = cookies
    if event.get("query_list"):
        made["queryStringParameters"] = joined(event["query_list"])
    if body:
        made["body"], made["isBase64Encoded"] = text_of(body, headers)
    return made


def text_of(body, headers):
    kind = headers.get("content-type", "text/plain").lower()
    if kind.startswith(TEXTS) and "content-encoding" not in headers:
        try:
            return body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), True


def http_answer(value):
    if not isinstance(value, dict) or "statusCode" not in value:
        # Also a text is answered as JSON.
        said = {"status": 200, "headers": {"content-type": JSON}}
        if value is not None:
            said["body"] = json.dumps(value)
        return said
    pairs = [(name, str(one).lower() if isinstance(one, bool) else str(one)) for name, one in (value.get("headers") or {}).items()]
    for name, several in (value.get("multiValueHeaders") or {}).items():
        pairs = [pair for pair in pairs if pair[0].lower() != name.lower()] + [(name, str(one)) for one in several]
    pairs += [("set-cookie", cookie) for cookie in value.get("cookies") or ()]
    said = {"status": status_of(value["statusCode"]), "header_list": pairs}
    if not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.append(("content-type", JSON))
    body = value.get("body")
    if body is None:
        return said
    if value.get("isBase64Encoded"):
        said["body_base64"] = body.decode() if isinstance(body, bytes) else body
    else:
        said["body"] = body if isinstance(body, str) else json.dumps(body)
    return said
