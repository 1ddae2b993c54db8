//! Ends that have proved their keys and then do not keep to the protocol: each ends its own session, by name, and soon.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{AsyncWriteExt as _, SinkExt as _, channel::mpsc, future::poll_fn};
use parking_lot::Mutex;
use piecework_model::{Code, Digest, Rejection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use yamux::{Config, Connection, Mode, Stream};

use super::{
    Bundles, Clock, LinkFailure, RemoteProvider, Versions, Wire,
    frames::{OrderId, ToController},
    golden::{NETWORK, introduction, key, order},
    handshake::introduce,
    messages::{Part, Say},
    parts::write,
    pipe::{Line, Pipe},
    receive,
};
use crate::ProviderLink as _;

struct NoBundles;

#[async_trait]
impl Bundles for NoBundles {
    async fn bundle(&self, _digest: Digest) -> Option<Bytes> {
        None
    }

    async fn named_by(&self, _: Digest) -> Vec<Digest> {
        Vec::new()
    }
}

fn wires(clock: &Clock) -> (Wire, Wire) {
    let ((out, incoming), (back, returning)) = (mpsc::unbounded(), mpsc::unbounded());
    let end = |out: mpsc::UnboundedSender<Result<Bytes, String>>, incoming| {
        let out = out
            .sink_map_err(|error| error.to_string())
            .with(|bytes: Bytes| futures::future::ok::<_, String>(Ok(bytes)));
        Wire::new(incoming, out).with_clock(clock.clone())
    };
    (end(out, returning), end(back, incoming))
}

pub(super) fn run(test: impl AsyncFnOnce(Clock)) {
    let (clock, advance) = Clock::paused();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(advance)
        .build();
    runtime.expect("a runtime").block_on(test(clock));
}

/// A controller that serves one session, and the provider's end of it in the hands of the test.
struct Session {
    remote: Arc<RemoteProvider>,
    ended: JoinHandle<LinkFailure>,
    line: Arc<Mutex<Line>>,
}

impl Session {
    async fn begin(clock: &Clock) -> Self {
        let (near, far) = wires(clock);
        let (give, remote) = tokio::sync::oneshot::channel();
        let ended = tokio::spawn(async move {
            let arrival = receive(near, &key(1), NETWORK).await.expect("a proof");
            let remote = RemoteProvider::new(&arrival);
            assert!(give.send(remote.clone()).is_ok());
            remote.serve(arrival, &NoBundles, 0, &CancellationToken::new()).await
        });
        let about = (introduction(), Versions::OURS);
        let welcome = introduce(far, &key(2), NETWORK, about, &|_| Ok(()))
            .await
            .expect("welcome");
        assert_eq!(welcome.version, 6);
        Self {
            remote: remote.await.expect("it serves"),
            ended,
            line: Line::new(welcome.sender, welcome.receiver),
        }
    }

    async fn send(&self, bytes: &[u8]) {
        let mut pipe = Pipe(self.line.clone());
        for part in bytes.chunks(60_000) {
            // The session may have ended on the way.
            let _ = pipe.write_all(part).await;
            let _ = poll_fn(|context| self.line.lock().poll_send(context)).await;
        }
    }

    /// The provider's streams as they should be; each that the controller opens goes to `serve`.
    fn streams(&self, mut serve: impl FnMut(Stream) + Send + 'static) {
        let line = self.line.clone();
        let mut connection = Connection::new(Pipe(line.clone()), Config::default(), Mode::Client);
        tokio::spawn(poll_fn(move |context| {
            loop {
                match connection.poll_next_inbound(context) {
                    std::task::Poll::Ready(Some(Ok(stream))) => {
                        serve(stream);
                        continue;
                    }
                    std::task::Poll::Ready(_) => return std::task::Poll::Ready(()),
                    std::task::Poll::Pending => {}
                }
                let had = line.lock().has_gathered();
                if line.lock().poll_send(context).is_pending() || !had {
                    return std::task::Poll::Pending;
                }
            }
        }));
    }

    async fn ends_with(self, why: &str) {
        match self.ended.await.expect("no panic") {
            LinkFailure::Protocol(said) => assert_eq!(said, why),
            other => panic!("{why}: {other}"),
        }
        assert!(!self.remote.is_linked());
    }
}

/// yamux's header: version, type, flags, stream, length.
fn header(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    [
        &[0, kind][..],
        &flags.to_be_bytes(),
        &stream.to_be_bytes(),
        &length.to_be_bytes(),
    ]
    .concat()
}

const SYN: u16 = 1;

#[test]
fn a_provider_that_opens_streams_ends_its_session() {
    run(async |clock| {
        let session = Session::begin(&clock).await;
        let flood: Vec<u8> = (0..5_000).flat_map(|at| header(1, SYN, 2 * at + 1, 0)).collect();
        session.send(&flood).await;
        session
            .ends_with("it opens a stream, which only the controller does")
            .await;
    });
}

#[test]
fn garbage_under_the_session_s_cipher_ends_it() {
    run(async |clock| {
        let session = Session::begin(&clock).await;
        session.send(&[0xff; 1_000]).await;
        session.ends_with("what it sends are no streams").await;

        // A frame that announces more than yamux takes at once.
        let session = Session::begin(&clock).await;
        session.send(&header(0, 0, 2, u32::MAX)).await;
        session.ends_with("what it sends are no streams").await;
    });
}

#[test]
fn a_window_without_bound_ends_the_session() {
    run(async |clock| {
        let session = Session::begin(&clock).await;
        // The control stream is the first that a controller opens. Twice: the sum is out of range.
        session
            .send(&[header(1, 0, 2, u32::MAX), header(1, 0, 2, u32::MAX)].concat())
            .await;
        session.ends_with("a stream's rules were broken").await;
    });
}

/// Answers the control stream with this, whatever was said on it.
async fn says(clock: &Clock, say: impl Fn(u64) -> Say + Send + Sync + 'static, times: u64) -> Session {
    let session = Session::begin(clock).await;
    let say = Arc::new(say);
    let mut is_control = true;
    session.streams(move |mut stream| {
        if !std::mem::take(&mut is_control) {
            return;
        }
        let say = say.clone();
        tokio::spawn(async move {
            for at in 0..times {
                if write(&mut stream, &say(at)).await.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
    });
    session
}

#[test]
fn a_flood_on_the_control_stream_ends_the_session() {
    run(async |clock| {
        let fetches = |fetch| Say::Fetch {
            fetch,
            digest: Digest([6; 32]),
        };
        let session = says(&clock, fetches, 5_000).await;
        session.ends_with("it asks for too many bundles at once").await;

        let warm = |_| Say::Beat {
            load: crate::Load::default(),
            warm: vec![(crate::FunctionId([1; 12]), 1); 1_001],
        };
        let session = says(&clock, warm, 1).await;
        session.ends_with("it tells of too many warm versions").await;
    });
}

#[test]
fn an_older_version_of_the_link_is_no_way_around_its_bounds() {
    run(async |clock| {
        let (near, far) = wires(&clock);
        let ended = tokio::spawn(async move {
            let arrival = receive(near, &key(1), NETWORK).await.expect("a proof");
            let remote = RemoteProvider::new(&arrival);
            remote.serve(arrival, &NoBundles, 0, &CancellationToken::new()).await
        });
        let second = Versions { lowest: 2, highest: 2 };
        let mut welcome = introduce(far, &key(2), NETWORK, (introduction(), second), &|_| Ok(()))
            .await
            .expect("welcome");
        assert_eq!(welcome.version, 2);
        let beat = ToController::Beat {
            load: crate::Load::default(),
            warm: vec![(crate::FunctionId([1; 12]), 1); 1_001],
        };
        welcome.sender.send(&beat).await.expect("it goes");
        let failure = ended.await.expect("no panic");
        let due = "it tells of too many warm versions";
        assert!(
            matches!(failure, LinkFailure::Protocol(said) if said == due),
            "{failure}"
        );
    });
}

/// It never reads its control stream: no window comes back, and what waits for it is bounded.
#[test]
fn a_provider_that_reads_nothing_is_let_go() {
    run(async |clock| {
        let lease = piecework_model::LeaseId([1; 20]);
        let kept = move |sequence| Say::Kept(OrderId { lease, sequence });
        let session = says(&clock, kept, 200_000).await;
        let failure = session.ended.await.expect("no panic");
        assert!(matches!(failure, LinkFailure::Silent), "{failure}");
        let stale = session.remote.stale.load(Ordering::Relaxed);
        assert!(
            stale < 40_000,
            "it was not read for as long as it read nothing: {stale}"
        );
    });
}

#[test]
fn a_message_that_announces_too_much_ends_the_session() {
    run(async |clock| {
        let session = Session::begin(&clock).await;
        session.streams(|mut stream| {
            tokio::spawn(async move {
                let _ = stream.write_all(&u32::MAX.to_le_bytes()).await;
                std::future::pending::<()>().await;
            });
        });
        session.ends_with("a message is too large").await;
    });
}

/// What a provider may answer an order with, in no order.
async fn answers(clock: &Clock, parts: fn() -> Vec<Part>, why: &str) {
    let session = Session::begin(clock).await;
    session.streams(move |mut stream| {
        tokio::spawn(async move {
            // The control stream begins with a message of 5 bytes, an order with hundreds.
            let mut length = [0; 4];
            futures::AsyncReadExt::read_exact(&mut stream, &mut length)
                .await
                .expect("an opening");
            if u32::from_le_bytes(length) > 100 {
                for part in parts() {
                    let _ = write(&mut stream, &part).await;
                }
            }
            std::future::pending::<()>().await;
        });
    });
    let lost = session.remote.run(order()).await.expect_err("it is given up");
    assert_eq!(lost.code, Code::ProviderLost);
    session.ends_with(why).await;
}

#[test]
fn parts_that_come_in_no_order_end_the_session() {
    const WHY: &str = "the parts of an answer come in no order";
    run(async |clock| {
        answers(&clock, || vec![Part::Chunk(Bytes::from_static(b"chunk"))], WHY).await;
        answers(&clock, || vec![Part::Begun, Part::Begun], WHY).await;
        answers(&clock, || vec![Part::Begun, Part::Chunk(Bytes::new())], WHY).await;
        answers(
            &clock,
            || vec![Part::Begun, Part::Chunk(vec![0; (64 << 10) + 1].into())],
            WHY,
        )
        .await;
        let twice = || {
            let head = || Part::Head(piecework_sandbox::Head::default());
            vec![Part::Begun, head(), head()]
        };
        answers(&clock, twice, WHY).await;
        answers(
            &clock,
            || vec![Part::Refused(Rejection::new(Code::TicketExpired, "no"))],
            WHY,
        )
        .await;
    });
}

#[test]
fn silence_after_the_welcome_ends_the_session() {
    run(async |clock| {
        let session = Session::begin(&clock).await;
        let began = clock.now();
        let failure = session.ended.await.expect("no panic");
        assert!(matches!(failure, LinkFailure::Silent), "{failure}");
        assert!(clock.now() - began <= Duration::from_secs(13));
    });
}
