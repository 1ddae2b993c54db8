//! What an unchanged program hears of a client that goes away in the middle of an answer, and what it may still do.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{carried_whole::connect, machine::Machine};

async fn up(name: &str, file: &str, code: &str, contract: &str) -> (Machine, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    let language = if file.ends_with(".py") { "python" } else { "javascript" };
    let more = json!({"handler": file, "public": true, "timeout_ms": 30_000});
    let view = machine.deploy_with(name, language, code, more).await.ok();
    assert_eq!(
        (&view["sandbox"], &view["contract"]),
        (&json!("jail"), &json!(contract))
    );
    (machine, directory)
}

/// Sends a request and reads until `until` has come; the connection, and the id of the job.
fn begin(machine: &Machine, path: &str, until: &str) -> (TcpStream, String) {
    let mut stream = connect(machine);
    let request = format!("GET {path} HTTP/1.1\r\nhost: example.org\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let mut seen = String::new();
    while !seen.contains(until) {
        let mut part = [0; 1_024];
        let got = stream.read(&mut part).expect("read");
        assert!(got > 0, "{seen}");
        seen += &String::from_utf8_lossy(&part[..got]);
    }
    let job = seen.lines().find_map(|line| line.strip_prefix("x-job-id: "));
    (stream, job.expect("the head has the job").trim().to_owned())
}

/// How a job ended, and what it has printed.
async fn ended(machine: &Machine, job: &str) -> (Value, String) {
    let view = machine.get(&format!("/jobs/{job}?wait_ms=20000")).await.ok();
    let logs = machine.get(&format!("/jobs/{job}/logs")).await.ok();
    (view["state"].clone(), logs["text"].as_str().expect("a text").to_owned())
}

/// Its client leaves after the first chunk.
async fn left(machine: &Machine, name: &str) -> String {
    let (stream, job) = begin(machine, &format!("/fn/operator/{name}/stream"), "first");
    drop(stream);
    let (state, logs) = ended(machine, &job).await;
    assert_eq!(state, "cancelled", "{logs}");
    logs
}

/// The same instance answers the next call: nothing of the last one is in its way.
async fn goes_on(machine: &Machine, name: &str) {
    for _ in 0..2 {
        let url = format!("{}/fn/operator/{name}/", machine.url);
        let text = reqwest::get(url).await.expect("answered").text().await.expect("text");
        assert_eq!(text, "calls 2", "the instance was kept");
    }
}

const ASGI: &str = "import asyncio
calls = set()

async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise NotImplementedError
    calls.add(scope['path'])
    await receive()
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    if not scope['path'].endswith('/stream'):
        return await send({'type': 'http.response.body', 'body': b'calls %d' % len(calls)})
    async def listen():
        message = await receive()
        print(message['type'])
    listening = asyncio.ensure_future(listen())
    await send({'type': 'http.response.body', 'body': b'first', 'more_body': True})
    await listening
    try:
        await send({'type': 'http.response.body', 'body': b'second', 'more_body': True})
    except OSError as error:
        print('send:', error)
    await asyncio.sleep(0.2)
    print('in the background')
";

#[tokio::test(flavor = "multi_thread")]
async fn an_asgi_app_gets_a_disconnect_and_ends_its_background_tasks() {
    let (machine, _directory) = up("asgi", "app.py", ASGI, "asgi").await;
    let logs = left(&machine, "asgi").await;
    assert_eq!(
        logs,
        "http.disconnect\nsend: the client has gone away\nin the background\n"
    );
    goes_on(&machine, "asgi").await;
}

const WSGI: &str = "import time
calls = set()

class Body:
    def __iter__(self):
        yield b'first'
        while True:
            time.sleep(0.02)
            yield b'more'

    def close(self):
        print('closed')

def app(environ, start_response):
    calls.add(environ['PATH_INFO'])
    start_response('200 OK', [])
    return Body() if environ['PATH_INFO'].endswith('/stream') else [b'calls %d' % len(calls)]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_wsgi_answer_is_closed() {
    let (machine, _directory) = up("wsgi", "app.py", WSGI, "wsgi").await;
    assert_eq!(left(&machine, "wsgi").await, "closed\n");
    goes_on(&machine, "wsgi").await;
}

const NODE: &str = "const calls = new Set();
export default (req, res) => {
  calls.add(req.url);
  if (req.url !== '/stream') return res.end(`calls ${calls.size}`);
  req.on('close', () => console.log('request closed'));
  res.on('close', () => {
    clearInterval(beat);
    console.log('response closed', res.writableFinished);
  });
  res.on('error', () => {});
  const beat = setInterval(() => res.write('more'), 20);
  res.write('first');
};
";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_server_hears_the_close() {
    let (machine, _directory) = up("node", "main.mjs", NODE, "node").await;
    let logs = left(&machine, "node").await;
    assert!(
        logs.contains("response closed false\n") && logs.contains("request closed\n"),
        "{logs}"
    );
    goes_on(&machine, "node").await;
}

const FETCH: &str = "const calls = new Set();
export default {
  fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    calls.add(pathname);
    if (pathname !== '/stream') return new Response(`calls ${calls.size}`);
    request.signal.addEventListener('abort', () => console.log('aborted', request.signal.reason.name));
    let left;
    ctx.waitUntil(new Promise((done) => (left = done)).then(() => console.log('waited until')));
    let sent = 0;
    return new Response(new ReadableStream({
      async pull(controller) {
        await new Promise((done) => setTimeout(done, 20));
        controller.enqueue(new TextEncoder().encode(sent++ ? 'more' : 'first'));
      },
      cancel() {
        console.log('cancelled');
        setTimeout(left, 100);
      },
    }));
  },
};
";

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_handler_sees_its_signal_and_its_stream_end() {
    let (machine, _directory) = up("fetch", "main.mjs", FETCH, "fetch").await;
    assert_eq!(
        left(&machine, "fetch").await,
        "aborted AbortError\ncancelled\nwaited until\n"
    );
    goes_on(&machine, "fetch").await;
}

const STREAMED: &str = "exports.handler = awslambda.streamifyResponse(async (event, responseStream, context) => {
  if (event.rawPath === undefined) { responseStream.write('a'); responseStream.end('b'); return; }
  const head = { statusCode: 201, headers: { 'content-type': 'text/plain', 'x-a': 1 }, cookies: ['a=1', 'b=2'] };
  responseStream = awslambda.HttpResponseStream.from(responseStream, head);
  responseStream.write('first ');
  await new Promise((done) => setTimeout(done, 4000));
  responseStream.write('last');
  responseStream.end();
});
";

#[tokio::test(flavor = "multi_thread")]
async fn a_streaming_lambda_is_read_while_it_writes() {
    let (machine, _directory) = up("lambda", "index.js", STREAMED, "lambda").await;
    let (mut stream, job) = begin(&machine, "/fn/operator/lambda/", "first ");
    let view = machine.get(&format!("/jobs/{job}")).await;
    assert!(
        view.body["state"] != "succeeded",
        "the last chunk is not written yet: {}",
        view.body
    );
    let mut rest = String::new();
    while !rest.contains("0\r\n\r\n") {
        let mut part = [0; 1_024];
        let got = stream.read(&mut part).expect("read");
        assert!(got > 0, "{rest}");
        rest += &String::from_utf8_lossy(&part[..got]);
    }
    assert!(rest.contains("last"), "{rest}");
    assert_eq!(ended(&machine, &job).await.0, "succeeded");
    let whole = reqwest::get(format!("{}/fn/operator/lambda/", machine.url))
        .await
        .expect("answered");
    assert_eq!(
        (whole.status().as_u16(), &whole.headers()["x-a"]),
        (201, &reqwest::header::HeaderValue::from_static("1"))
    );
    assert_eq!(whole.text().await.expect("text"), "first last");
}
