//! The agent's end against runners that keep to the protocol, and against some that do not.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use piecework_model::{AccountId, Digest, EgressList, JobId, Language, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc::Receiver,
};
use tokio_util::sync::CancellationToken;

use super::{
    channel::{Channel, Ended, NotLoaded},
    frames::{SECRET_BYTES, Secret},
};
use crate::{CHUNK_BYTES_MAX, Call, EgressMeter, Head, Inlet, Outcome, Outlet, Program, Sent};

/// What went over the channel, as this version has it for ever: a change of it is another version.
const TRANSCRIPT: &str = include_str!("../../tests/golden/runner-protocol-3.txt");

/// A runner's end in the hands of a test; writes down what it hears and says.
struct Runner {
    stream: DuplexStream,
    secret: Secret,
    transcript: String,
}

impl Runner {
    async fn hears(&mut self, kind: u8) -> Vec<u8> {
        let length = self.stream.read_u32_le().await.unwrap();
        self.stream.read_exact(&mut self.secret).await.unwrap();
        let heard = self.stream.read_u8().await.unwrap();
        let mut payload = vec![0; length as usize - SECRET_BYTES - 1];
        self.stream.read_exact(&mut payload).await.unwrap();
        self.note("agent ", length, heard, &payload);
        assert_eq!(heard as char, kind as char, "{}", self.transcript);
        payload
    }

    async fn says(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(SECRET_BYTES + 1 + payload.len()).unwrap();
        let frame = [&length.to_le_bytes()[..], &self.secret, &[kind], payload].concat();
        self.note("runner", length, kind, payload);
        // An agent that has had enough reads no further.
        let _ = self.stream.write_all(&frame).await;
    }

    fn note(&mut self, who: &str, length: u32, kind: u8, payload: &[u8]) {
        let length: String = length.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let payload = String::from_utf8_lossy(payload);
        let line = format!("{who} {length} SECRET {} {payload}", kind as char);
        self.transcript.push_str(line.trim_end());
        self.transcript.push('\n');
    }
}

fn pair() -> (Channel<DuplexStream>, Runner) {
    let (ours, theirs) = tokio::io::duplex(CHUNK_BYTES_MAX);
    let runner = Runner {
        stream: theirs,
        secret: [0; SECRET_BYTES],
        transcript: String::new(),
    };
    (Channel::new(ours), runner)
}

fn program() -> Program {
    Program {
        owner: AccountId([1; 20]),
        language: Language::Python,
        code: Digest::of(b"code"),
        directory: "/nowhere".into(),
        handler: Some("app.py:run".to_owned()),
        image: None,
        env: BTreeMap::from([("KEY".to_owned(), "value".to_owned())]),
        limits: Limits::DEFAULT,
        egress: EgressList::default(),
        function_name: "hello".to_owned(),
        version: 3,
    }
}

fn call() -> Call {
    Call {
        job: JobId([7; 16]),
        event: Bytes::from_static(br#"{"name":"Ada"}"#),
        parameters: Bytes::from_static(b"null"),
        deadline_ms: 1_800_000_000_000,
        time_left: Duration::from_secs(5),
        stop: CancellationToken::new(),
        egress: EgressMeter::default(),
        body: None,
        outlet: Outlet::nowhere(),
    }
}

fn streaming() -> (Call, Receiver<Sent>) {
    let (outlet, parts) = Outlet::channel();
    (Call { outlet, ..call() }, parts)
}

fn ended(outcome: Outcome, reusable: bool) -> Option<Ended> {
    Some(Ended { outcome, reusable })
}

async fn all(mut parts: Receiver<Sent>) -> Vec<Sent> {
    let mut all = Vec::new();
    while let Some(part) = parts.recv().await {
        all.push(part);
    }
    all
}

#[tokio::test]
async fn the_protocol_is_as_it_was_written_down() {
    let (mut channel, mut runner) = pair();
    let (mut streamed, parts) = streaming();
    let (body, inlet) = Inlet::channel();
    streamed.body = Some(inlet);
    let program = program();
    let plain = call();
    let meter = streamed.egress.clone();
    let agent = async {
        assert_eq!(channel.greeting().await, Ok(()));
        assert_eq!(channel.load(&program, &[("HOME", "/tmp")]).await, Ok(()));
        let returned = channel.call(&plain, &Limits::DEFAULT).await;
        assert_eq!(returned, ended(Outcome::Returned("1".into()), true));
        let answered = channel.call(&streamed, &Limits::DEFAULT).await;
        assert_eq!(answered, ended(Outcome::Streamed, true));
        drop(streamed);
        assert!(
            channel
                .call(&plain, &Limits::DEFAULT)
                .await
                .is_some_and(|ended| ended.reusable)
        );
    };
    let served = async {
        runner.says(b'H', br#"{"protocol":3}"#).await;
        runner.hears(b'L').await;
        runner.says(b'D', b"").await;
        runner.hears(b'C').await;
        runner.says(b'O', b"1").await;
        runner.hears(b'C').await;
        runner.says(b'B', b"").await;
        body.send("in".into()).await.unwrap();
        runner.hears(b'b').await;
        let head = br#"{"status":200,"headers":[["Set-Cookie","a=1"],["Set-Cookie","b=2"]]}"#;
        runner.says(b'h', head).await;
        runner.says(b'B', b"").await;
        runner.says(b'c', b"out").await;
        runner.says(b'Q', b"").await;
        runner.hears(b'e').await;
        runner.says(b'S', b"").await;
        runner.hears(b'C').await;
        runner.says(b'R', br#"{"type":"E","message":"m","stack":"s"}"#).await;
    };
    tokio::join!(agent, served);
    assert_eq!(runner.transcript, TRANSCRIPT);
    assert_eq!(meter.streamed_bytes(), 3);
    let cookie = |value: &'static str| ("set-cookie".to_owned(), Bytes::from(value));
    let headers = vec![cookie("a=1"), cookie("b=2")];
    assert_eq!(
        all(parts).await,
        [Sent::Head(Head { status: 200, headers }), Sent::Chunk("out".into())]
    );
    assert!(body.send("more".into()).await.is_err(), "nobody takes it any more");
}

/// Whoever asks is told that its reader has gone, and ends the call itself; the sandbox lives on.
#[tokio::test]
async fn a_runner_that_watches_is_told_when_nobody_reads_any_more() {
    for stops in [false, true] {
        let (mut channel, mut runner) = pair();
        let (outlet, parts) = Outlet::channel();
        let streamed = Call { outlet, ..call() };
        let plain = call();
        let (stop, watched) = (streamed.stop.clone(), channel.watched());
        let served = async {
            runner.hears(b'C').await;
            runner.says(b'W', b"").await;
            runner.says(b'h', br#"{"status":200,"headers":[]}"#).await;
            runner.says(b'c', b"one").await;
            if stops {
                stop.cancel();
            } else {
                drop(parts);
            }
            runner.hears(b'g').await;
            assert!(watched.ends_by_itself());
            runner.says(b'c', b"two").await;
            runner.says(b'R', br#"{"type":"E","message":"m","stack":"s"}"#).await;
            runner.hears(b'C').await;
            assert!(!watched.ends_by_itself());
            runner.says(b'W', b"").await;
            runner.says(b'V', b"").await;
            runner.hears(b'g').await;
            runner.says(b'O', b"1").await;
        };
        let agent = async {
            let answered = channel.call(&streamed, &Limits::DEFAULT).await;
            assert_eq!(answered, ended(Outcome::Stopped, true), "stops: {stops}");
            assert!(streamed.egress.streamed_bytes() <= 3, "what nobody read costs nothing");
            let again = channel.call(&plain, &Limits::DEFAULT).await;
            assert_eq!(again, ended(Outcome::Returned("1".into()), true));
        };
        tokio::join!(agent, served);
    }
}

#[tokio::test]
async fn a_runner_that_was_told_and_goes_on_is_ended() {
    let (mut channel, mut runner) = pair();
    let (outlet, parts) = Outlet::channel();
    let streamed = Call { outlet, ..call() };
    let served = async {
        runner.hears(b'C').await;
        runner.says(b'W', b"").await;
        runner.says(b'h', br#"{"status":200,"headers":[]}"#).await;
        drop(parts);
        runner.hears(b'g').await;
        std::future::pending::<()>().await;
    };
    let agent = async {
        let answered = channel.call(&streamed, &Limits::DEFAULT).await;
        assert_eq!(answered, ended(Outcome::Stopped, false));
    };
    tokio::select! {
        () = agent => {}
        () = served => {}
    }
}

#[tokio::test]
async fn a_call_that_left_something_running_is_the_last_of_its_sandbox() {
    let (mut channel, mut runner) = pair();
    let plain = call();
    let served = async {
        runner.hears(b'C').await;
        runner.says(b'X', b"").await;
        runner.says(b'O', b"1").await;
    };
    let (returned, ()) = tokio::join!(channel.call(&plain, &Limits::DEFAULT), served);
    assert_eq!(returned, ended(Outcome::Returned("1".into()), false));
}

#[tokio::test]
async fn a_runner_of_another_version_is_refused_with_both_numbers() {
    for (greeting, told) in [
        (r#"{"protocol":4}"#, "version 4 of the protocol, and this build 3"),
        ("", "no version"),
    ] {
        let (mut channel, mut runner) = pair();
        let (answer, ()) = tokio::join!(channel.greeting(), runner.says(b'H', greeting.as_bytes()));
        let refused = answer.expect_err("another version");
        assert!(refused.contains(told), "{refused}");
    }
}

#[tokio::test]
async fn a_load_is_answered_as_a_load() {
    for (kind, payload, told) in [
        (b'O', "1", NotLoaded::ByHand),
        (b'h', "{}", NotLoaded::ByHand),
        (b'D', "", NotLoaded::Closed),
    ] {
        let (mut channel, mut runner) = pair();
        let program = program();
        let served = async {
            runner.hears(b'L').await;
            if told == NotLoaded::Closed {
                drop(runner);
            } else {
                runner.says(kind, payload.as_bytes()).await;
            }
        };
        let (loaded, ()) = tokio::join!(channel.load(&program, &[]), served);
        assert_eq!(loaded, Err(told));
    }
}

/// Frames that one call is answered with.
type Frames<'a> = &'a [(u8, &'a [u8])];

/// What becomes of a call that a runner answers with these frames, and what was read of it.
async fn answered(frames: Frames<'_>) -> (Option<Ended>, Vec<Sent>) {
    let (mut channel, mut runner) = pair();
    let (call, parts) = streaming();
    let agent = async {
        let ended = channel.call(&call, &Limits::DEFAULT).await;
        drop((call, channel));
        ended
    };
    let served = async {
        runner.hears(b'C').await;
        for (kind, payload) in frames {
            runner.says(*kind, payload).await;
        }
    };
    let (ended, (), parts) = tokio::join!(agent, served, all(parts));
    (ended, parts)
}

const HEAD: (u8, &[u8]) = (b'h', br#"{"status":0,"headers":[]}"#);

#[tokio::test]
async fn a_hostile_runner_only_spoils_its_own_answer() {
    let long = vec![b'x'; CHUNK_BYTES_MAX + 1];
    let cases: [(&str, Frames<'_>, usize); 14] = [
        ("a chunk without a head", &[(b'c', b"x"), (b'S', b"")], 0),
        ("two heads", &[HEAD, HEAD, (b'S', b"")], 1),
        ("a head of no JSON", &[(b'h', b"{"), (b'S', b"")], 0),
        (
            "a head that splits the answer",
            &[(b'h', br#"{"status":0,"headers":[["a","b\n"]]}"#), (b'S', b"")],
            0,
        ),
        ("a chunk that is too long", &[HEAD, (b'c', &long), (b'S', b"")], 1),
        ("an empty chunk", &[HEAD, (b'c', b""), (b'S', b"")], 1),
        ("an output after a head", &[HEAD, (b'O', b"1")], 1),
        ("two pulls for one part", &[(b'B', b""), (b'B', b""), (b'O', b"1")], 0),
        ("two watches at once", &[(b'W', b""), (b'W', b"")], 0),
        ("a watch after a watch", &[(b'W', b""), (b'V', b""), (b'W', b"")], 0),
        ("two ends of one watch", &[(b'W', b""), (b'V', b""), (b'V', b"")], 0),
        ("an end of no watch", &[(b'V', b""), (b'O', b"1")], 0),
        ("an output that is no JSON", &[(b'O', b"{")], 0),
        ("a forged error", &[(b'R', b"{")], 0),
    ];
    for (what, frames, read) in cases {
        let (ended, parts) = answered(frames).await;
        let ended = ended.unwrap_or_else(|| panic!("{what}: it closed"));
        assert!(matches!(ended.outcome, Outcome::OutputInvalid(_)), "{what}: {ended:?}");
        assert!(!ended.reusable, "{what}");
        assert_eq!(parts.len(), read, "{what}: {parts:?}");
    }
}

#[tokio::test]
async fn what_follows_the_end_of_a_stream_spoils_it_or_the_next_call() {
    let (mut channel, mut runner) = pair();
    let (call, parts) = streaming();
    let agent = async {
        let first = channel.call(&call, &Limits::DEFAULT).await.expect("an answer");
        // Where the late chunk came with the end, nothing is left that could answer a second question.
        let next = match first.reusable {
            true => channel.call(&call, &Limits::DEFAULT).await,
            false => None,
        };
        drop(call);
        (first, next)
    };
    let served = async {
        runner.hears(b'C').await;
        runner.says(HEAD.0, HEAD.1).await;
        runner.says(b'S', b"").await;
        runner.says(b'c', b"late").await;
    };
    let ((first, next), (), parts) = tokio::join!(agent, served, all(parts));
    let spoilt = |ended: &Ended| matches!(ended.outcome, Outcome::OutputInvalid(_)) && !ended.reusable;
    assert!(spoilt(&first) || (first.outcome == Outcome::Streamed && next.as_ref().is_some_and(spoilt)));
    assert_eq!(parts.len(), 1, "{parts:?}");
}

#[tokio::test]
async fn a_runner_that_answers_before_its_body_came_is_not_asked_again() {
    let (ended, _) = answered(&[(b'Q', b""), (b'O', b"1")]).await;
    assert_eq!(
        ended,
        self::ended(Outcome::Returned("1".into()), true),
        "there was none to leave"
    );
    let (mut channel, mut runner) = pair();
    let (_pending, inlet) = Inlet::channel();
    let call = Call {
        body: Some(inlet),
        ..call()
    };
    let served = async {
        runner.hears(b'C').await;
        runner.says(b'B', b"").await;
        runner.says(b'O', b"1").await;
    };
    let (ended, ()) = tokio::join!(channel.call(&call, &Limits::DEFAULT), served);
    assert_eq!(ended, self::ended(Outcome::Returned("1".into()), false));
}

/// Each question is answered in a few bytes more: unread, they would grow without bound on this side.
#[tokio::test]
async fn a_runner_that_asks_without_end_and_reads_nothing_ends_its_call() {
    for (asks, asks_no_more) in [(b'B', b'Q'), (b'W', b'V')] {
        let (mut channel, mut runner) = pair();
        let call = call();
        let flood = async {
            runner.hears(b'C').await;
            loop {
                runner.says(asks, b"").await;
                runner.says(asks_no_more, b"").await;
            }
        };
        let ended = tokio::select! {
            ended = channel.call(&call, &Limits::DEFAULT) => ended.expect("an answer"),
            () = flood => unreachable!("it never stops"),
        };
        assert!(matches!(ended.outcome, Outcome::OutputInvalid(_)), "{ended:?}");
        assert!(!ended.reusable);
    }
}

/// The agent stops reading when its reader does: what is on the way is a few chunks, whatever the runner would send.
#[tokio::test]
async fn a_flood_waits_for_its_reader() {
    let (mut channel, mut runner) = pair();
    let (call, mut parts) = streaming();
    let chunk = vec![b'x'; CHUNK_BYTES_MAX];
    let mut sent = 0;
    let agent = channel.call(&call, &Limits::DEFAULT);
    let flood = async {
        runner.hears(b'C').await;
        runner.says(HEAD.0, HEAD.1).await;
        loop {
            runner.says(b'c', &chunk).await;
            sent += 1;
        }
    };
    let quiet = tokio::time::timeout(Duration::from_millis(200), async { tokio::join!(agent, flood) });
    assert!(quiet.await.is_err(), "it went on without a reader");
    // The outlet, the channel's own, and the stream's.
    assert!((4..=8).contains(&sent), "{sent} chunks went");
    let mut read = 0;
    while parts.try_recv().is_ok() {
        read += 1;
    }
    assert!(read <= 5, "{read} parts waited");
}

#[tokio::test]
async fn a_reader_that_goes_ends_the_call_while_the_runner_is_silent() {
    let (mut channel, mut runner) = pair();
    let (call, mut parts) = streaming();
    let served = async {
        runner.hears(b'C').await;
        runner.says(HEAD.0, HEAD.1).await;
        parts.recv().await.expect("a head");
        drop(parts);
    };
    let (ended, ()) = tokio::join!(channel.call(&call, &Limits::DEFAULT), served);
    assert_eq!(ended, self::ended(Outcome::Stopped, false));
}

#[tokio::test]
async fn a_call_that_streams_to_nobody_is_stopped_and_one_that_returns_is_not() {
    for (frames, outcome, reusable) in [
        (&[HEAD][..], Outcome::Stopped, false),
        (&[(b'O', &b"1"[..])], Outcome::Returned("1".into()), true),
    ] {
        let (mut channel, mut runner) = pair();
        let call = call();
        let served = async {
            runner.hears(b'C').await;
            for (kind, payload) in frames {
                runner.says(*kind, payload).await;
            }
        };
        let (ended, ()) = tokio::join!(channel.call(&call, &Limits::DEFAULT), served);
        assert_eq!(ended, self::ended(outcome, reusable));
    }
}
