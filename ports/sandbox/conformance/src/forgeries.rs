//! Functions that write to the channel by hand, with all that can be known inside: the frames' form and the call's secret.

use crate::{
    bench::{Bench, Check, Kind, ensure},
    streams::stream_of,
};

/// Walks up to the runner's own frame for the secret; in WebAssembly calls the host's imports.
const FORGES_PY: &str = r#"
import os, sys
try:
    import wit_world
except ImportError:
    wit_world = None

def secret():
    frame = sys._getframe()
    while 'secret' not in frame.f_locals or frame.f_code.co_name != 'call':
        frame = frame.f_back
    return frame.f_locals['secret']

def send(frames):
    if wit_world is None:
        # In one write: the agent sees all of it at once.
        os.write(sys.modules['__main__'].OUT, b''.join((17 + len(payload)).to_bytes(4, 'little') + secret() + kind + payload for kind, payload in frames))
        return
    for kind, payload in frames:
        if kind == b'S':
            return  # Here the end is the handler's return: there is no way to say it before.
        if kind == b'h':
            wit_world.send_head(payload.decode())
        elif kind == b'c':
            wit_world.send_chunk(payload)

HEAD = (b'h', b'{"status":200,"headers":[]}')
END = (b'S', b'')
ATTACKS = {
    'chunk without a head': [(b'c', b'x')],
    'end without a head': [END, (b'c', b'x')],
    'two heads': [HEAD, HEAD],
    'a head that is no JSON': [(b'h', b'{')],
    'a head that splits the answer': [(b'h', b'{"status":200,"headers":[["a","b\\r\\n\\r\\n"]]}')],
    'a head without end': [(b'h', b'{"status":200,"headers":[["a","' + b'b' * 300000 + b'"]]}')],
    'an empty chunk': [HEAD, (b'c', b'')],
    'a chunk that is too long': [HEAD, (b'c', b'x' * 65537)],
    'a chunk after the end': [HEAD, (b'c', b'x'), END, (b'c', b'y')],
    'an output after a head': [HEAD],
    'an output after chunks': [HEAD, (b'c', b'x')],
    'a head of its own before the real one': [HEAD, 'stream'],
}
def handler(event, context):
    attack = ATTACKS[event]
    send([frame for frame in attack if frame != 'stream'])
    return iter(['honest']) if 'stream' in attack else 'honest'
"#;

/// Takes the secret from what the runner writes. Where there is no `fs` there is nothing to write to.
const FORGES_JS: &str = r#"
const fs = import.meta.url.includes('/function/') ? (await import('node:fs')).default : null;
const head = ['h', '{"status":200,"headers":[]}'];
const end = ['S', ''];
const attacks = {
    'chunk without a head': [['c', 'x']],
    'end without a head': [end, ['c', 'x']],
    'two heads': [head, head],
    'a head that is no JSON': [['h', '{']],
    'a head that splits the answer': [['h', '{"status":200,"headers":[["a","b\\r\\n\\r\\n"]]}']],
    'a head without end': [['h', `{"status":200,"headers":[["a","${'b'.repeat(300000)}"]]}`]],
    'an empty chunk': [head, ['c', '']],
    'a chunk that is too long': [head, ['c', 'x'.repeat(65537)]],
    'a chunk after the end': [head, ['c', 'x'], end, ['c', 'y']],
    'an output after a head': [head],
    'an output after chunks': [head, ['c', 'x']],
    'a head of its own before the real one': [head, head],
};
export default (event) => {
    if (fs === null) return 'honest';
    const write = fs.writeSync;
    fs.writeSync = (fd, frame, ...rest) => {
        // In a container the channel is two pipes.
        if (fd !== 3 && fd !== 4) return write(fd, frame, ...rest);
        fs.writeSync = write;
        const forged = attacks[event].map(([kind, payload]) => {
            const one = Buffer.alloc(21 + payload.length);
            one.writeUInt32LE(17 + payload.length, 0);
            frame.copy(one, 4, 4, 20);
            one.write(kind + payload, 20, 'latin1');
            return one;
        });
        // In one write: the agent sees all of it at once.
        write(fd, Buffer.concat(forged));
        return write(fd, frame, ...rest);
    };
    return 'honest';
};
"#;

const ATTACKS: [&str; 12] = [
    "chunk without a head",
    "end without a head",
    "two heads",
    "a head that is no JSON",
    "a head that splits the answer",
    "a head without end",
    "an empty chunk",
    "a chunk that is too long",
    "a chunk after the end",
    "an output after a head",
    "an output after chunks",
    "a head of its own before the real one",
];

pub(super) async fn a_forged_stream_is_no_answer(bench: Bench) -> Check {
    let mut running = bench.start(bench.program(FORGES_PY, FORGES_JS)).await?;
    for attack in ATTACKS {
        let call = running.a_call(&format!("\"{attack}\""));
        let answered = stream_of(&mut running, call)
            .await
            .map_err(|error| format!("{attack}: {error}"))?;
        let kind = Kind::of(&answered.finished.outcome);
        // Where nothing can be forged the function is honest in all of them.
        let harmless = kind == Kind::Returned && answered.head.is_none();
        if !harmless {
            let expected = bench.expect(&answered.finished, &[Kind::OutputInvalid]);
            expected.map_err(|error| format!("{attack}: {error}"))?;
            ensure!(!answered.finished.reusable, "{attack}: it may not be used again");
        }
        ensure!(answered.bytes.len() <= 1, "{attack}: {:?} was sent", answered.bytes);
        running.renew(answered.finished.reusable).await?;
    }
    bench.still_serves().await
}
