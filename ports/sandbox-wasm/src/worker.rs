//! The host's side of one worker: who lives in it, what it holds, and how it ended.
//!
//! ```text
//! spare --an owner comes--> theirs --nobody lives in it for a while, or its place is needed--> closed
//!                             `--it dies by itself--> lost: who was in it is told why, once for all
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use piecework_sandbox_jail::walls::{Slot, packet_pair, receive, send};
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    hatchery::{self, Zygote},
    line::Line,
    pace::{Pace, Stride},
    words::{Errand, Forking, PLACES, Proof},
};

/// What a worker holds beside its instances: its threads, the engine's tables, what freed instances keep for the next ones.
const BASE_BYTES: u64 = 64 << 20;
/// What an instance holds beside its linear memory: its stacks and tables, and the host's copies of what it says.
const INSTANCE_BYTES: u64 = 16 << 20;
/// What even a program with a smaller limit gets: see `MEMORY_GROWTH_BYTES_MIN` of the instances, and a component's own.
const INSTANCE_BYTES_MIN: u64 = 64 << 20;
/// How long an instance that was let go may take to be gone.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);
/// How long a killed worker is waited for.
const DIES_WITHIN_NS: i64 = 200_000_000;
/// The first moment of a call, in which this thread waits for it: what takes longer says so by then.
const FIRST_MOMENT: Duration = Duration::from_millis(3);

/// What a worker is made with.
pub(crate) struct Made {
    pub(crate) forking: Forking,
    pub(crate) group: Option<Slot>,
    pub(crate) instances_max: u32,
    /// Among those that live, for its identity.
    pub(crate) number: u32,
    pub(crate) pace: Arc<Pace>,
}

pub(crate) struct Worker {
    process: OwnedFd,
    errands: Mutex<OwnedFd>,
    group: Option<Slot>,
    instances_max: usize,
    pub(crate) number: u32,
    zygote: Arc<Zygote>,
    pace: Arc<Pace>,
    inside: Mutex<Inside>,
}

struct Inside {
    state: State,
    next: u64,
    live: HashMap<u64, Tenant>,
    /// Their streams are shut; they are gone when the other end is shut too.
    leaving: Vec<Leaving>,
    /// Programs that the worker knows, and the place of each one's bundle.
    places: HashMap<u64, u32>,
    free: Vec<u32>,
    used: Instant,
    stride: Stride,
}

struct Tenant {
    program: u64,
    bytes: u64,
    /// Since when a call or its start runs.
    runs: Option<Instant>,
}

struct Leaving {
    stream: UnixStream,
    bytes: u64,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Ended by this process while nothing ran.
    Closed,
    Lost(Loss),
}

/// How the instances of a worker that died ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// One program was in it: that one did it.
    Alone { out_of_memory: bool },
    /// Several were: which of them did it is not known.
    Shared,
}

/// Why nobody moves in.
pub(crate) enum NoSeat {
    /// As many instances as it holds.
    Full,
    /// The worker is no more: another has to be taken.
    Gone,
    Failed(io::Error),
}

/// One instance's place in a worker. Dropping it ends the instance.
pub(crate) struct Seat {
    line: Option<Line>,
    worker: Arc<Worker>,
    number: u64,
}

impl Worker {
    /// Forks one and waits until its walls stand: a millisecond or two.
    pub(crate) fn new(zygote: Arc<Zygote>, made: Made) -> io::Result<Arc<Self>> {
        let (ours, theirs) = packet_pair()?;
        hatchery::patient(&ours)?;
        let groups = made.group.iter().flat_map(|group| group.entries());
        let process = zygote.fork(made.forking, theirs.as_fd(), groups)?;
        drop(theirs);
        let (packet, _) = receive(ours.as_fd())?;
        let stands: Result<(), String> =
            borsh::from_slice(&packet).map_err(|_| io::Error::other("a worker ended at its start"))?;
        stands.map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            process,
            errands: Mutex::new(ours),
            group: made.group,
            instances_max: usize::try_from(made.instances_max).unwrap_or(usize::MAX),
            number: made.number,
            zygote,
            pace: made.pace,
            inside: Mutex::new(Inside::new()),
        }))
    }

    pub(crate) fn tell(&self, errand: &Errand, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(self.errands.lock().as_fd(), &borsh::to_vec(errand)?, descriptors)
    }

    /// What its walls let through.
    pub(crate) fn prove(&self) -> io::Result<Proof> {
        let errands = self.errands.lock();
        send(errands.as_fd(), &borsh::to_vec(&Errand::Prove)?, &[])?;
        let (packet, _) = receive(errands.as_fd())?;
        borsh::from_slice(&packet)
    }

    /// Makes room for an instance of the program: its bundle, its memory, a stream.
    pub(crate) fn seat(
        self: &Arc<Self>,
        (program, bundle): (u64, &Path),
        memory_bytes: u64,
        said_bytes_max: usize,
    ) -> Result<(Seat, u32), NoSeat> {
        let mut inside = self.inside.lock();
        self.sweep(&mut inside);
        if inside.state != State::Open || self.is_dead() {
            return Err(NoSeat::Gone);
        }
        if inside.live.len() + inside.leaving.len() >= self.instances_max {
            return Err(NoSeat::Full);
        }
        let place = self.place(&mut inside, program, bundle)?;
        let bytes = memory_bytes.max(INSTANCE_BYTES_MIN) + INSTANCE_BYTES;
        self.allow(inside.bytes() + bytes).map_err(NoSeat::Failed)?;
        let (line, theirs) = Line::pair(said_bytes_max, FIRST_MOMENT).map_err(NoSeat::Failed)?;
        // A worker that does not take it is on its way out.
        self.tell(&Errand::Serve, &[theirs.as_fd()]).map_err(|_| NoSeat::Gone)?;
        let number = inside.next;
        inside.next += 1;
        let now = Instant::now();
        inside.used = now;
        let tenant = Tenant {
            program,
            bytes,
            runs: Some(now),
        };
        inside.live.insert(number, tenant);
        self.begins(&mut inside);
        let seat = Seat {
            line: Some(line),
            worker: Arc::clone(self),
            number,
        };
        Ok((seat, place))
    }

    fn place(&self, inside: &mut Inside, program: u64, bundle: &Path) -> Result<u32, NoSeat> {
        if let Some(place) = inside.places.get(&program) {
            return Ok(*place);
        }
        let place = match inside.free.pop() {
            Some(place) => place,
            None => {
                let unused = inside.unused().ok_or(NoSeat::Full)?;
                self.forget_one(inside, unused);
                inside.free.pop().ok_or(NoSeat::Full)?
            }
        };
        if let Err(error) = self.zygote.bind(self.process.as_fd(), place, bundle) {
            inside.free.push(place);
            return Err(NoSeat::Failed(error));
        }
        inside.places.insert(program, place);
        Ok(place)
    }

    /// The program is not loaded any more.
    pub(crate) fn forget(&self, program: u64) {
        let mut inside = self.inside.lock();
        if inside.state == State::Open {
            self.forget_one(&mut inside, program);
        }
    }

    fn forget_one(&self, inside: &mut Inside, program: u64) {
        let Some(place) = inside.places.remove(&program) else {
            return;
        };
        let told = self.tell(&Errand::Forget(program), &[]);
        // The place is not used again where it cannot be emptied.
        if told.is_ok() && self.zygote.unbind(self.process.as_fd(), place).is_ok() {
            inside.free.push(place);
        }
    }

    /// The control group's limit: what all its instances may hold together.
    fn allow(&self, bytes: u64) -> io::Result<()> {
        match &self.group {
            Some(group) => group.limit_memory(BASE_BYTES.saturating_add(bytes)),
            None => Ok(()),
        }
    }

    /// Takes note of who is gone. A worker in which an instance does not leave is ended.
    fn sweep(&self, inside: &mut Inside) {
        let before = inside.leaving.len();
        let now = Instant::now();
        let mut stuck = false;
        inside.leaving.retain(|leaving| {
            let shut = is_shut(&leaving.stream);
            stuck |= !shut && now.duration_since(leaving.since) > LEAVES_WITHIN;
            !shut
        });
        if stuck {
            tracing::warn!("an instance of a wasm worker did not end: the worker is killed");
            hatchery::kill(&self.process);
        }
        let bytes = inside.bytes();
        let fits = |group: &Slot| group.memory_bytes() <= BASE_BYTES + bytes;
        if inside.leaving.len() < before && self.group.as_ref().is_some_and(fits) {
            // It stays as it is where the kernel cannot bring it down.
            let _ = self.allow(bytes);
        }
    }

    /// Looks after it; how long nobody has lived in it, if nobody does.
    pub(crate) fn look(&self) -> Option<Duration> {
        let mut inside = self.inside.lock();
        self.sweep(&mut inside);
        (inside.live.is_empty() && inside.leaving.is_empty()).then(|| inside.used.elapsed())
    }

    /// When it was last used, unless something runs in it.
    pub(crate) fn rests_since(&self) -> Option<Instant> {
        let inside = self.inside.lock();
        (!inside.live.values().any(|tenant| tenant.runs.is_some())).then_some(inside.used)
    }

    /// Ends it, unless something runs in it; whether it is no more.
    pub(crate) fn close(&self) -> bool {
        let mut inside = self.inside.lock();
        if inside.live.values().any(|tenant| tenant.runs.is_some()) {
            return false;
        }
        if inside.state == State::Open {
            inside.state = State::Closed;
        }
        hatchery::kill(&self.process);
        true
    }

    /// Ends it whatever runs in it.
    pub(crate) fn kill(&self) {
        hatchery::kill(&self.process);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.inside.lock().state == State::Open && !self.is_dead()
    }

    fn is_dead(&self) -> bool {
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&now)).is_ok_and(|dead| dead > 0)
    }

    /// Something begins to run in it.
    fn begins(self: &Arc<Self>, inside: &mut Inside) {
        let Some(group) = &self.group else { return };
        if inside.stride.begins() {
            group.let_others_first(false);
        }
        if !std::mem::replace(&mut inside.stride.is_listed, true) {
            self.pace.look_after(self);
        }
    }

    /// Whether it is to be looked at again soon: something runs in it.
    pub(crate) fn keep_pace(&self, now: Instant) -> bool {
        let Some(group) = &self.group else { return false };
        let mut inside = self.inside.lock();
        let Inside { live, stride, .. } = &mut *inside;
        let running = live.values().filter_map(|tenant| tenant.runs);
        if let Some(yields) = stride.look(running, now, || group.cpu_us()) {
            group.let_others_first(yields);
        }
        stride.is_listed
    }

    /// How the worker died, once a stream broke in it; `None` where it lives, and only that instance ended.
    pub(crate) async fn loss(&self) -> Option<Loss> {
        /// The kernel closes streams a little before it says that a process ended.
        const DYING: Duration = Duration::from_millis(500);
        let begun = Instant::now();
        while !self.is_dead() {
            if begun.elapsed() > DYING {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut inside = self.inside.lock();
        if let State::Lost(loss) = inside.state {
            return Some(loss);
        }
        let programs: BTreeSet<u64> = inside.live.values().map(|tenant| tenant.program).collect();
        let out_of_memory = self.group.as_ref().is_some_and(Slot::hit_memory_limit);
        let loss = match programs.len() {
            ..=1 => Loss::Alone { out_of_memory },
            _ => Loss::Shared,
        };
        tracing::warn!(
            ?loss,
            instances = inside.live.len(),
            "a wasm worker died; another takes its place"
        );
        inside.state = State::Lost(loss);
        Some(loss)
    }
}

impl Drop for Worker {
    /// Waits for its end, some milliseconds: its control group is another's afterwards.
    fn drop(&mut self) {
        hatchery::kill(&self.process);
        let within = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: DIES_WITHIN_NS,
        };
        let _ = poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&within));
        if let Some(group) = self.group.as_ref().filter(|_| self.inside.get_mut().stride.begins()) {
            group.let_others_first(false);
        }
    }
}

impl Inside {
    fn new() -> Self {
        Self {
            state: State::Open,
            next: 0,
            live: HashMap::new(),
            leaving: Vec::new(),
            places: HashMap::new(),
            free: (0..PLACES).rev().collect(),
            used: Instant::now(),
            stride: Stride::default(),
        }
    }

    fn bytes(&self) -> u64 {
        let live: u64 = self.live.values().map(|tenant| tenant.bytes).sum();
        live + self.leaving.iter().map(|leaving| leaving.bytes).sum::<u64>()
    }

    /// A program of which nothing lives.
    fn unused(&self) -> Option<u64> {
        let lives = |program: u64| self.live.values().any(|tenant| tenant.program == program);
        self.places.keys().copied().find(|program| !lives(*program))
    }
}

/// Whether the other end is shut; what it said last is of no interest.
fn is_shut(stream: &UnixStream) -> bool {
    let mut buffer = [0; 4_096];
    loop {
        match rustix::net::recv(stream, &mut buffer, rustix::net::RecvFlags::DONTWAIT) {
            Ok((0, _)) => return true,
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
            Err(_) => return true,
        }
    }
}

impl Seat {
    pub(crate) fn line(&mut self) -> &mut Line {
        self.line.as_mut().expect("taken only when dropped")
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// A call begins; false where the worker was ended meanwhile.
    pub(crate) fn begins(&self) -> bool {
        let mut inside = self.worker.inside.lock();
        let now = Instant::now();
        inside.used = now;
        let is_open = inside.state == State::Open;
        if let Some(tenant) = inside.live.get_mut(&self.number) {
            tenant.runs = is_open.then_some(now);
        }
        if is_open {
            self.worker.begins(&mut inside);
        }
        is_open
    }

    pub(crate) fn rests(&self) {
        let mut inside = self.worker.inside.lock();
        inside.used = Instant::now();
        if let Some(tenant) = inside.live.get_mut(&self.number) {
            tenant.runs = None;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inside = self.worker.inside.lock();
        let tenant = inside.live.remove(&self.number);
        if let (Some(line), Some(tenant), State::Open) = (self.line.take(), tenant, inside.state) {
            let stream = line.into_stream();
            // It fails where the other end is gone, which is as well.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            inside.leaving.push(Leaving {
                stream,
                bytes: tenant.bytes,
                since: Instant::now(),
            });
        }
    }
}
