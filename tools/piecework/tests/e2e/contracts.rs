//! Other people's code, unchanged: apps and handlers of other platforms, each called on its URL.

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use piecework_model::Code;
use serde_json::{Value, json};

use crate::{
    carried_whole::{Raw, connect, raw},
    machine::Machine,
};

async fn up() -> (Machine, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    (machine, directory)
}

/// Deploys a file of this name; what contract was found.
async fn deploy(machine: &Machine, name: &str, file: &str, code: &str) -> Value {
    let language = if file.ends_with(".py") { "python" } else { "javascript" };
    let view = machine
        .deploy_with(name, language, code, json!({"handler": file, "public": true}))
        .await
        .ok();
    assert_eq!(view["sandbox"], "jail", "{view}");
    view["contract"].clone()
}

fn ask(machine: &Machine, request: &str, rest: &str, body: &str) -> Raw {
    let mut stream = connect(machine);
    let head = format!(
        "{request} HTTP/1.1\r\nhost: example.org\r\nconnection: close\r\ncontent-length: {}\r\n{rest}\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    raw(&bytes)
}

/// The body that chunks carry.
fn unchunked(raw: &Raw) -> String {
    assert_eq!(raw.values("transfer-encoding"), ["chunked"]);
    let text = String::from_utf8_lossy(&raw.body);
    let mut lines = text.split("\r\n");
    let mut body = String::new();
    while let (Some(_), Some(chunk)) = (lines.next(), lines.next()) {
        body += chunk;
    }
    body
}

const ASGI: &str = "import asyncio, json

async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
        scope['state']['up'] = 1
        await send({'type': 'lifespan.startup.complete'})
        await receive()
        return
    async def head(status, *headers):
        await send({'type': 'http.response.start', 'status': status, 'headers': list(headers)})
    path = scope['path'].removeprefix(scope['root_path'])
    if path == '/stream':
        await head(200)
        for part in (b'a', b'b', b'c'):
            await send({'type': 'http.response.body', 'body': part, 'more_body': True})
            await asyncio.sleep(0.01)
        await send({'type': 'http.response.body'})
    elif path == '/after':
        await head(200, (b'content-length', b'2'))
        await send({'type': 'http.response.body', 'body': b'hi'})
        await asyncio.sleep(1)
        print('after the answer')
    elif path == '/task':
        asyncio.get_running_loop().create_task(asyncio.sleep(60))
        await head(204)
        await send({'type': 'http.response.body'})
    elif path == '/silent':
        return
    else:
        message = await receive()
        seen = {key: scope[key] for key in ('method', 'path', 'root_path', 'scheme', 'http_version', 'state')}
        seen['raw_path'], seen['query'] = scope['raw_path'].decode(), scope['query_string'].decode()
        seen['headers'] = [[k.decode(), v.decode('latin-1')] for k, v in scope['headers'] if k.startswith(b'x-')]
        seen['client'], seen['body'] = scope['client'][0], message['body'].decode()
        await head(201, (b'content-type', b'application/json'), (b'x-a', b'1'), (b'x-a', b'2'))
        await send({'type': 'http.response.body', 'body': json.dumps(seen).encode()})
";

#[tokio::test(flavor = "multi_thread")]
async fn an_asgi_app_runs_as_it_is() {
    let (machine, _directory) = up().await;
    assert_eq!(deploy(&machine, "asgi", "app.py", ASGI).await, "asgi");
    let sent = "x-b: 1\r\nx-b: caf\u{e9}\r\ncontent-type: application/json\r\n";
    let got = ask(
        &machine,
        "POST /fn/operator/asgi/a%2Fb/?q=1&q=%C3%A9",
        sent,
        "[12345678901234567890123]",
    );
    assert_eq!((got.status(), got.values("x-a")), (201, vec!["1", "2"]));
    let due = json!({
        "method": "POST", "path": "/fn/operator/asgi/a/b/", "root_path": "/fn/operator/asgi", "scheme": "http",
        "http_version": "1.1", "state": {"up": 1}, "raw_path": "/fn/operator/asgi/a%2Fb/", "query": "q=1&q=%C3%A9",
        "headers": [["x-b", "1"], ["x-b", "caf\u{c3}\u{a9}"]], "client": "127.0.0.1", "body": "[12345678901234567890123]",
    });
    assert_eq!(got.json(), due);
    let got = ask(&machine, "GET /fn/operator/asgi/stream", "", "");
    assert_eq!(unchunked(&got), "abc");
    let got = ask(&machine, "GET /fn/operator/asgi/silent", "", "");
    assert_eq!(got.json()["error"]["code"], Code::FunctionRaised.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_does_after_its_answer_is_not_waited_for_and_gets_done() {
    let (machine, _directory) = up().await;
    deploy(&machine, "asgi", "app.py", ASGI).await;
    ask(&machine, "GET /fn/operator/asgi/x", "", "");
    let begun = Instant::now();
    let got = ask(&machine, "GET /fn/operator/asgi/after", "", "");
    assert_eq!((got.status(), &*got.body), (200, &b"hi"[..]));
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    let job = got.values("x-job-id")[0].to_owned();
    let ended = machine.get(&format!("/jobs/{job}?wait_ms=10000")).await.ok();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let logs = machine.get(&format!("/jobs/{job}/logs")).await.ok();
    assert_eq!(logs["text"], "after the answer\n");
}

/// What a call left running, in the words of its log; the next call meets nothing of it.
async fn left_by(machine: &Machine, path: &str, next: &str) -> String {
    let got = ask(machine, &format!("GET {path}"), "", "");
    assert!(got.status() < 300, "{got:?}");
    let logs = machine
        .get(&format!("/jobs/{}/logs", got.values("x-job-id")[0]))
        .await
        .ok();
    let again = ask(machine, &format!("GET {next}"), "", "");
    let later = machine
        .get(&format!("/jobs/{}/logs", again.values("x-job-id")[0]))
        .await
        .ok();
    assert_eq!(later["text"], "", "nothing reaches the next caller");
    logs["text"].as_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_leaves_running_is_told_in_its_own_log_and_ends_its_instance() {
    let (machine, _directory) = up().await;
    deploy(&machine, "asgi", "app.py", ASGI).await;
    let said = left_by(&machine, "/fn/operator/asgi/task", "/fn/operator/asgi/x").await;
    assert!(said.contains("left 1 asyncio task running"), "{said}");

    let threads = "import threading, time
count = 0
def handler(event, context):
    global count
    count += 1
    if event['path'] == '/thread':
        threading.Thread(target=lambda: (time.sleep(0.05), print('late'))).start()
    if event['path'] == '/short':
        threading.Thread(target=int).start()
    return str(count)
";
    let jail = json!({"public": true, "sandbox": "jail"});
    machine
        .deploy_with("threads", "python", threads, jail.clone())
        .await
        .ok();
    let said = left_by(&machine, "/fn/operator/threads/thread", "/fn/operator/threads").await;
    assert!(said.contains("left 1 thread (Thread-"), "{said}");
    assert_eq!(
        left_by(&machine, "/fn/operator/threads/short", "/fn/operator/threads").await,
        ""
    );

    let timers = "export default (event) => {
  if (event.path === '/timer') setTimeout(() => console.log('late'), 20);
  if (event.path === '/promise') Promise.reject(new Error('nobody waits'));
  if (event.path === '/quick') Promise.resolve().then(() => 1);
  return 'x';
};
";
    machine.deploy_with("timers", "javascript", timers, jail).await.ok();
    let said = left_by(&machine, "/fn/operator/timers/timer", "/fn/operator/timers").await;
    assert!(said.contains("left 1 timer, operation or worker running"), "{said}");
    let said = left_by(&machine, "/fn/operator/timers/promise", "/fn/operator/timers").await;
    assert!(
        said.contains("Error: nobody waits") && said.contains("a promise that failed"),
        "{said}"
    );
    assert_eq!(
        left_by(&machine, "/fn/operator/timers/quick", "/fn/operator/timers").await,
        ""
    );
}

const WSGI: &str = "def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/stream':
        return Parts(start_response)
    start_response('201 Created', [('Content-Type', 'text/plain; charset=utf-8'), ('Set-Cookie', 'a=1'), ('X-A', '1'), ('X-A', '2')])
    names = ('REQUEST_METHOD', 'SCRIPT_NAME', 'PATH_INFO', 'QUERY_STRING', 'HTTP_X_B', 'CONTENT_TYPE', 'CONTENT_LENGTH', 'REMOTE_ADDR', 'SERVER_NAME')
    seen = [environ.get(name) for name in names] + [environ['wsgi.input'].read().decode(), 'HTTP_X_C' in environ]
    return [repr(seen).encode()]

class Parts:
    def __init__(self, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
    def __iter__(self):
        yield b''
        yield b'a'
        yield b'b'
    def close(self):
        print('closed')
";

#[tokio::test(flavor = "multi_thread")]
async fn a_wsgi_app_runs_as_it_is() {
    let (machine, _directory) = up().await;
    assert_eq!(deploy(&machine, "wsgi", "wsgi.py", WSGI).await, "wsgi");
    let sent = "x-b: 1\r\nx-b: 2\r\nx_c: spoofed\r\ncontent-type: text/plain\r\n";
    let got = ask(&machine, "POST /fn/operator/wsgi/caf%C3%A9%FF?q=1", sent, "hi");
    assert_eq!((got.status(), got.values("x-a")), (201, vec!["1", "2"]));
    let due = "['POST', '/fn/operator/wsgi', '/caf\u{c3}\u{a9}\u{ff}', 'q=1', '1,2', 'text/plain', '2', '127.0.0.1', \
               'example.org', 'hi', False]";
    assert_eq!(String::from_utf8_lossy(&got.body), due);
    let got = ask(&machine, "GET /fn/operator/wsgi/stream", "", "");
    assert_eq!(unchunked(&got), "ab");
    let job = got.values("x-job-id")[0];
    machine.get(&format!("/jobs/{job}?wait_ms=5000")).await.ok();
    assert_eq!(machine.get(&format!("/jobs/{job}/logs")).await.ok()["text"], "closed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_handler_runs_as_it_is() {
    let (machine, _directory) = up().await;
    let code = "export default {
  async fetch(request, env, ctx) {
    const { pathname, search } = new URL(request.url);
    if (pathname === '/wait') {
      ctx.waitUntil(new Promise((done) => setTimeout(() => (console.log('waited'), done()), 1000)));
      return new Response('hi');
    }
    const headers = new Headers({ 'x-a': '1' });
    headers.append('set-cookie', 'a=1');
    headers.append('set-cookie', 'b=2');
    return Response.json([request.method, pathname, search, request.headers.get('x-b'), await request.text(), env.WHO], { status: 201, headers });
  },
};
";
    let settings = json!({"public": true, "env": {"WHO": "ada"}});
    let view = machine.deploy_with("fetch", "javascript", code, settings).await.ok();
    assert_eq!((&view["contract"], &view["sandbox"]), (&json!("fetch"), &json!("jail")));
    let got = ask(
        &machine,
        "POST /fn/operator/fetch/a%2Fb?q=1",
        "x-b: 1\r\nx-b: 2\r\n",
        "hi",
    );
    assert_eq!((got.status(), got.values("x-a")), (201, vec!["1"]));
    assert_eq!(got.json(), json!(["POST", "/a%2Fb", "?q=1", "1, 2", "hi", "ada"]));
    let begun = Instant::now();
    let got = ask(&machine, "GET /fn/operator/fetch/wait", "", "");
    assert_eq!(&*got.body, b"hi");
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    let job = got.values("x-job-id")[0];
    assert_eq!(
        machine.get(&format!("/jobs/{job}?wait_ms=10000")).await.ok()["state"],
        "succeeded"
    );
    assert_eq!(machine.get(&format!("/jobs/{job}/logs")).await.ok()["text"], "waited\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_server_runs_as_it_is() {
    let (machine, _directory) = up().await;
    let server = "const http = require('node:http');
http.createServer((req, res) => {
  if (req.url === '/stream') {
    res.write('a');
    return setTimeout(() => res.end('b'), 20);
  }
  let body = '';
  req.on('data', (part) => (body += part));
  req.on('end', () => {
    res.writeHead(201, { 'x-a': ['1', '2'], 'content-type': 'application/json' });
    res.end(JSON.stringify([req.method, req.url, req.headers['x-b'], body, req.socket.remoteAddress]));
  });
}).listen(3000);
";
    assert_eq!(deploy(&machine, "server", "index.js", server).await, "node");
    let got = ask(
        &machine,
        "PUT /fn/operator/server/a%2Fb?q=1",
        "x-b: 1\r\nx-b: 2\r\n",
        "hi",
    );
    assert_eq!((got.status(), got.values("x-a")), (201, vec!["1", "2"]));
    assert_eq!(got.json(), json!(["PUT", "/a%2Fb?q=1", "1, 2", "hi", "127.0.0.1"]));
    let got = ask(&machine, "GET /fn/operator/server/stream", "", "");
    assert_eq!(unchunked(&got), "ab");
    let listener =
        "export default async (req, res) => { res.setHeader('etag', '1'); res.statusCode = 304; res.end(); };\n";
    assert_eq!(deploy(&machine, "listener", "main.mjs", listener).await, "node");
    let got = ask(&machine, "GET /fn/operator/listener", "", "");
    assert_eq!((got.status(), got.values("etag")), (304, vec!["1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lambda_handler_gets_a_function_urls_event_at_its_url_and_any_other_as_it_is() {
    let (machine, _directory) = up().await;
    let python = "def lambda_handler(event, context):
    if 'rawPath' not in event:
        return event
    if event['rawPath'] == '/text':
        return 'Hello'
    assert context.get_remaining_time_in_millis() > 0 and context.aws_request_id == event['requestContext']['requestId']
    seen = [event['version'], event['rawPath'], event['rawQueryString'], event['queryStringParameters'], event['headers']['x-b'],
            event['body'], event['isBase64Encoded'], event['requestContext']['http']['sourceIp']]
    import json
    return {'statusCode': 201, 'headers': {'x-n': 1}, 'cookies': ['a=1', 'b=2'], 'body': json.dumps(seen)}
";
    let javascript = "exports.handler = (event, context, callback) => {
  if (event.rawPath === undefined) return callback(null, event);
  if (event.rawPath === '/text') return callback(null, 'Hello');
  const seen = [event.version, event.rawPath, event.rawQueryString, event.queryStringParameters, event.headers['x-b'],
    event.body, event.isBase64Encoded, event.requestContext.http.sourceIp];
  if (!(context.getRemainingTimeInMillis() > 0)) throw new Error('late');
  setTimeout(() => callback(null, { statusCode: 201, headers: { 'x-n': 1 }, cookies: ['a=1', 'b=2'], body: JSON.stringify(seen) }), 1);
};
";
    for (name, file, code) in [("py", "lambda_function.py", python), ("js", "index.js", javascript)] {
        assert_eq!(deploy(&machine, name, file, code).await, "lambda", "{name}");
        let sent = "x-b: 1\r\nx-b: 2\r\ncontent-type: application/x-www-form-urlencoded\r\n";
        let got = ask(
            &machine,
            &format!("POST /fn/operator/{name}/p?a=1&a=2&b=%20"),
            sent,
            "a=1",
        );
        assert_eq!((got.status(), got.values("x-n")), (201, vec!["1"]), "{name}");
        let due = json!(["2.0", "/p", "a=1&a=2&b=%20", {"a": "1,2", "b": " "}, "1,2", "YT0x", true, "127.0.0.1"]);
        assert_eq!(got.json(), due, "{name}");
        let text = ask(&machine, &format!("GET /fn/operator/{name}/text"), "", "");
        assert_eq!(
            (&*text.body, text.values("content-type")),
            (&b"\"Hello\""[..], vec!["application/json"])
        );
        let direct = machine.call(name, json!({"a": 1})).await.ok();
        assert_eq!(direct["output"], json!({"a": 1}), "{name}");
    }
}

const OPENFAAS: &str = "def handle(event, context):
    if event.path == '/tuple':
        return 'made', 201, {'X-O': '1'}
    if event.path == '/body':
        return {'body': {'a': 1}}
    if event.path == '/data':
        return {'a': 1}
    return {'statusCode': 202, 'headers': {'X-O': '2'}, 'body': [event.query.get('q'), event.headers.get('X-Custom')]}
";

const LAMBDA_OF_OLD: &str = "exports.handler = function (event, context) {
  if (event.rawPath === '/later') return setTimeout(() => context.done(null, { ok: 'later' }), 1);
  if (event.rawPath === '/fail') return context.fail(new Error('refused'));
  if (event.rawPath === '/many') return context.succeed({ statusCode: 200, headers: { 'x-m': '0' }, multiValueHeaders: { 'X-M': ['1', '2'] } });
  if (event.rawPath === '/odd') return context.succeed({ statusCode: 99, body: '' });
  context.succeed({ ok: 'now' });
};
";

/// It tells nobody anything: `done` is the iterator's.
const LAMBDA_OF_NOTHING: &str = "exports.handler = function (event, context) {
  const numbers = [1, 2].values();
  for (let next = numbers.next(); !next.done; next = numbers.next());
};
";

#[tokio::test(flavor = "multi_thread")]
async fn rare_forms_of_the_contracts_are_kept_and_no_bad_status_passes_for_data() {
    let (machine, _directory) = up().await;
    for (name, file, code, contract) in [
        ("faas", "handler.py", OPENFAAS, "openfaas"),
        ("old", "index.js", LAMBDA_OF_OLD, "lambda"),
        ("nothing", "index.js", LAMBDA_OF_NOTHING, "lambda"),
        (
            "error",
            "main.mjs",
            "export default { fetch: () => Response.error() };\n",
            "fetch",
        ),
    ] {
        assert_eq!(deploy(&machine, name, file, code).await, contract);
    }
    let get = |path: &str, rest: &str| ask(&machine, &format!("GET /fn/operator/{path}"), rest, "");
    let made = get("faas/tuple", "");
    assert_eq!((made.status(), made.values("x-o")), (201, vec!["1"]));
    assert_eq!(&*made.body, b"made");
    assert_eq!(get("faas/body", "").json(), json!({"a": 1}));
    assert_eq!(get("faas/data", "").json(), json!({"a": 1}));
    let said = get("faas/x?q=first&q=second", "x-custom: seen\r\n");
    assert_eq!((said.status(), said.values("x-o")), (202, vec!["2"]));
    assert_eq!(said.json(), json!(["first", "seen"]));

    assert_eq!(get("old/", "").json(), json!({"ok": "now"}));
    assert_eq!(get("old/later", "").json(), json!({"ok": "later"}));
    assert_eq!(get("nothing/", "").status(), 200);
    assert_eq!(get("old/many", "").values("x-m"), ["1", "2"]);
    for path in ["old/fail", "old/odd", "error"] {
        let failed = get(path, "");
        assert_eq!(
            (failed.status(), &failed.json()["error"]["code"]),
            (502, &json!(Code::FunctionRaised.as_str())),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_named_or_refused_and_never_called_in_wasm() {
    let (machine, _directory) = up().await;
    let named = json!({"handler": "main.py:serve@wsgi"});
    let code = "def serve(a, b):\n    b('200 OK', [])\n    return [a['PATH_INFO'].encode()]\n";
    assert_eq!(
        machine.deploy_with("named", "python", code, named).await.ok()["contract"],
        "wsgi"
    );
    let refused = machine
        .deploy_with("unknown", "python", code, json!({"handler": "main.py:serve@cgi"}))
        .await;
    refused.refused(422, Code::FunctionBadHandler);
    for (language, code) in [
        ("python", "def app(environ, start_response):\n    return []\n"),
        ("javascript", "export default { fetch: () => new Response('x') };\n"),
        ("javascript", "export default (req, res) => res.end('x');\n"),
    ] {
        let refused = machine
            .deploy_with("wasm", language, code, json!({"sandbox": "wasm"}))
            .await;
        refused.refused(409, Code::SandboxUnsupported);
    }
}
