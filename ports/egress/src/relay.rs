//! One instance's network access: its listening sockets live as long as the instance, and forward only during a call.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_model::EgressList;
use piecework_sandbox::EgressMeter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket, tcp},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Doors, Egress,
    log::Log,
    names::{Known, Names, Question, Verdict},
    places::{Payer, Place},
};

/// Connections of one instance at one time.
const CONNECTIONS_MAX: usize = 64;
/// Connections of one call in all, those that were refused among them.
const CONNECTIONS_PER_CALL_MAX: u32 = 4_096;
/// Concurrent name queries of one instance; more are dropped, and the resolver inside asks again.
const QUESTIONS_MAX: usize = 16;
const LOOKUP_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES_TRIED: usize = 3;
const CHUNK_BYTES: usize = 16 << 10;
/// After an accept failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The way out of one instance. Dropping it closes its doors and cuts every connection.
pub struct Relay {
    way: Arc<Way>,
    _attending: JoinSet<()>,
}

struct Way {
    egress: Arc<Egress>,
    list: EgressList,
    names: Mutex<Names>,
    call: Mutex<Option<Arc<Running>>>,
    questions: Arc<Semaphore>,
}

/// What one call moves.
struct Running {
    meter: EgressMeter,
    limit: u64,
    log: Mutex<Log>,
    places: Arc<Semaphore>,
    made: AtomicU32,
    tasks: Mutex<JoinSet<()>>,
}

/// Why a connection was not made.
type Reason = &'static str;

const NOT_LISTED: Reason = "refused: not on the function's allow list";
const NOT_PERMITTED: Reason = "refused: no address that functions may reach";
const NO_SUCH_NAME: Reason = "the name does not resolve";
const TOO_MANY_NAMES: Reason = "refused: the instance has asked for too many names";
const TOO_MANY: Reason = "refused: too many connections";
const BUSY: Reason = "refused: this account's functions, or all together, have too many connections at the provider";
const UNREACHABLE: Reason = "allowed, but no answer";
const USED_UP: Reason = "cut: the run's limit of network bytes is used up";

impl Relay {
    /// Attends the doors, which lead nowhere yet. Must be called within a tokio runtime.
    pub fn start(egress: Arc<Egress>, list: EgressList, doors: Doors) -> io::Result<Self> {
        let way = Arc::new(Way {
            egress,
            list,
            names: Mutex::default(),
            call: Mutex::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        });
        let mut attending = JoinSet::new();
        doors.names.set_nonblocking(true)?;
        let names = Arc::new(UdpSocket::from_std(doors.names)?);
        attending.spawn(way.clone().answer_names(names));
        for door in doors.ports {
            door.set_nonblocking(true)?;
            attending.spawn(way.clone().attend(TcpListener::from_std(door)?));
        }
        Ok(Self {
            way,
            _attending: attending,
        })
    }

    /// Lets connections through until [`Relay::close`]; `meter` never counts beyond `limit` bytes.
    pub fn open(&self, meter: EgressMeter, limit: u64) {
        let running = Running {
            meter,
            limit,
            log: Mutex::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            made: AtomicU32::new(0),
            tasks: Mutex::default(),
        };
        *self.way.call.lock() = Some(Arc::new(running));
    }

    /// Cuts every connection and returns what was requested. When it returns, the meter has stopped.
    pub async fn close(&self) -> String {
        let running = self.way.call.lock().take();
        let Some(running) = running else {
            return String::new();
        };
        let mut tasks = std::mem::take(&mut *running.tasks.lock());
        tasks.shutdown().await;
        running.log.lock().tell(running.meter.bytes())
    }
}

impl Drop for Relay {
    /// The tasks of a running call hold what holds them.
    fn drop(&mut self) {
        if let Some(running) = self.way.call.lock().take() {
            running.tasks.lock().abort_all();
        }
    }
}

/// What a connection was made to, as the function meant it.
enum Target {
    Name(String, u16),
    Address(Ipv4Addr, u16),
}

impl Way {
    async fn attend(self: Arc<Self>, door: TcpListener) {
        loop {
            match door.accept().await {
                Ok((stream, _)) => self.admit(stream),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Holds the lock on the call, so that none is admitted to one that is being closed.
    fn admit(self: &Arc<Self>, stream: TcpStream) {
        let call = self.call.lock();
        let Some(running) = &*call else {
            return reset(stream);
        };
        let places = running.places.clone().try_acquire_owned();
        let many = running.made.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_PER_CALL_MAX;
        let (Ok(place), false) = (places, many) else {
            running.log.lock().say("a connection", TOO_MANY);
            return reset(stream);
        };
        let Some(shared) = self.egress.connections.take(running.meter.payer()) else {
            running.log.lock().say("a connection", BUSY);
            return reset(stream);
        };
        let mut tasks = running.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(self.clone().carry(running.clone(), stream, (place, shared)));
    }

    async fn carry(self: Arc<Self>, running: Arc<Running>, inside: TcpStream, _places: (OwnedSemaphorePermit, Place)) {
        let Some(target) = self.target(&inside) else {
            running.log.lock().say("an address that stands for no name", NOT_LISTED);
            return reset(inside);
        };
        let what = match &target {
            Target::Name(name, port) => format!("{name}:{port}"),
            Target::Address(address, port) => format!("{address}:{port}"),
        };
        match self.connect(&target, running.meter.payer()).await {
            Ok(outside) => {
                running.log.lock().connected(&what);
                if let Err(Cut) = relay(inside, outside, &running).await {
                    running.log.lock().say(&what, USED_UP);
                }
            }
            Err(reason) => {
                running.log.lock().say(&what, reason);
                reset(inside);
            }
        }
    }

    /// Whom the function meant: the address that it connected to is the one that this end has.
    fn target(&self, inside: &TcpStream) -> Option<Target> {
        let SocketAddr::V4(meant) = inside.local_addr().ok()? else {
            return None;
        };
        let address = *meant.ip();
        if let Some(name) = self.names.lock().of(address) {
            return Some(Target::Name(name.to_owned(), meant.port()));
        }
        Some(Target::Address(address, meant.port()))
    }

    async fn connect(&self, target: &Target, payer: Payer) -> Result<TcpStream, Reason> {
        let (addresses, port) = match target {
            Target::Name(name, port) if self.list.allows_name(name, *port) => (self.resolve(name, payer).await?, *port),
            Target::Address(address, port) if self.list.allows_address(*address, *port) => {
                (vec![IpAddr::V4(*address)], *port)
            }
            Target::Name(..) | Target::Address(..) => return Err(NOT_LISTED),
        };
        // Checked here, whatever was checked before: this is the address that is connected to.
        let permitted: Vec<IpAddr> = addresses
            .into_iter()
            .filter(|address| self.egress.permits(*address))
            .collect();
        if permitted.is_empty() {
            return Err(NOT_PERMITTED);
        }
        for address in permitted.into_iter().take(ADDRESSES_TRIED) {
            if let Ok(Ok(stream)) = timeout(CONNECT_WITHIN, TcpStream::connect((address, port))).await {
                return Ok(stream);
            }
        }
        Err(UNREACHABLE)
    }

    /// The addresses of a name, asked for anew if what is known is old.
    async fn resolve(&self, name: &str, payer: Payer) -> Result<Vec<IpAddr>, Reason> {
        let kept = self.egress.names_kept;
        let known = self
            .names
            .lock()
            .known(name)
            .filter(|known| known.at.elapsed() < kept)
            .cloned();
        if let Some(known) = known {
            return Ok(known.addresses);
        }
        let lookup = async {
            let _turn = self.egress.lookups.take(payer).await;
            self.egress.resolver.resolve(name).await.ok()
        };
        let addresses = timeout(LOOKUP_WITHIN, lookup)
            .await
            .ok()
            .flatten()
            .ok_or(NO_SUCH_NAME)?;
        let known = Known {
            addresses: addresses.clone(),
            at: Instant::now(),
        };
        match self.names.lock().note(name, known) {
            Some(_) => Ok(addresses),
            None => Err(TOO_MANY_NAMES),
        }
    }

    async fn answer_names(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut packet = [0; 1_024];
        loop {
            let Ok((length, asker)) = socket.recv_from(&mut packet).await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Some(question) = Question::parse(&packet[..length]) else {
                continue;
            };
            let call = self.call.lock();
            let Some(running) = &*call else {
                // Full buffers lose it; whoever asked asks again.
                let _ = socket.try_send_to(&question.answer(Verdict::Refused), asker);
                continue;
            };
            let Ok(place) = self.questions.clone().try_acquire_owned() else {
                continue;
            };
            let (way, log, socket) = (self.clone(), running.clone(), socket.clone());
            let mut tasks = running.tasks.lock();
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                let verdict = way.judge(&question, &log).await;
                let _ = socket.send_to(&question.answer(verdict), asker).await;
                drop(place);
            });
        }
    }

    async fn judge(&self, question: &Question, running: &Running) -> Verdict {
        let name = question.name.as_str();
        if !self.list.knows(name) {
            running.log.lock().say(name, NOT_LISTED);
            return Verdict::NoSuchName;
        }
        if !question.wants_address() {
            return Verdict::NothingOfThatKind;
        }
        let addresses = match self.resolve(name, running.meter.payer()).await {
            Ok(addresses) => addresses,
            Err(reason) => {
                running.log.lock().say(name, reason);
                return if reason == NO_SUCH_NAME {
                    Verdict::NoSuchName
                } else {
                    Verdict::Failed
                };
            }
        };
        if !addresses.iter().any(|address| self.egress.permits(*address)) {
            running.log.lock().say(name, NOT_PERMITTED);
            return Verdict::NoSuchName;
        }
        let known = Known {
            addresses,
            at: Instant::now(),
        };
        let noted = self.names.lock().note(name, known);
        noted.map_or(Verdict::Failed, Verdict::Address)
    }
}

/// Tells the other side at once; what it sent is lost.
fn reset(stream: TcpStream) {
    // If it fails the other side sees an end instead.
    let _ = stream.set_zero_linger();
}

/// The limit of network bytes cut a connection.
struct Cut;

async fn relay(inside: TcpStream, outside: TcpStream, running: &Running) -> Result<(), Cut> {
    for stream in [&inside, &outside] {
        // Slower if it fails, not wrong.
        let _ = stream.set_nodelay(true);
    }
    let (from_inside, to_inside) = inside.into_split();
    let (from_outside, to_outside) = outside.into_split();
    tokio::try_join!(
        pump(from_inside, to_outside, running),
        pump(from_outside, to_inside, running),
    )
    .map(drop)
}

/// Moves bytes one way until their end, which is passed on. A broken connection ends this way only: the other sees it
/// itself.
async fn pump(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, running: &Running) -> Result<(), Cut> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let got = match from.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(got) => got,
        };
        if !running.meter.take(got as u64, running.limit) {
            return Err(Cut);
        }
        if to.write_all(&chunk[..got]).await.is_err() {
            break;
        }
    }
    // It may be closed already.
    let _ = to.shutdown().await;
    Ok(())
}
