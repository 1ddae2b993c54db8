//! Open connections: how many there are of whom, what each is doing, and which one makes room.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Caller;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nothing has come.
    Fresh,
    /// Part of a request's head has come.
    Head,
    /// A request was answered; the next one may come.
    Idle,
    /// The next part of a request's body is awaited.
    Body,
    /// The client does not read its answer.
    Deaf,
    /// A request runs.
    Busy,
    /// It speaks another protocol by now, in which its client has proved nothing yet.
    Upgraded,
    /// Its client has proved who it is.
    Kept,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Fresh,
        Self::Head,
        Self::Idle,
        Self::Body,
        Self::Deaf,
        Self::Busy,
        Self::Upgraded,
        Self::Kept,
    ];

    fn of(number: u8) -> Self {
        Self::ALL[usize::from(number)]
    }

    /// Who makes room first; `None` for who does not. Those that have never asked for anything go before an honest
    /// client's pool of idle connections.
    fn expendable(self) -> Option<u8> {
        match self {
            Self::Fresh | Self::Head | Self::Upgraded => Some(0),
            Self::Idle => Some(1),
            Self::Body | Self::Deaf => Some(2),
            Self::Busy | Self::Kept => None,
        }
    }
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) all: usize,
    pub(crate) per_caller: usize,
}

/// The connections of one server.
#[derive(Clone, Default)]
pub(crate) struct Seats(Arc<Table>);

struct Table {
    began: Instant,
    state: Mutex<State>,
    /// Bytes of large answers that their readers have not taken yet.
    held: AtomicU64,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::default(),
            held: AtomicU64::new(0),
        }
    }
}

#[derive(Default)]
struct State {
    /// All that have a seat, those that have proved who they are among them.
    all: usize,
    /// Told to go, and not gone yet: each has its descriptor still.
    leaving: usize,
    callers: HashMap<Caller, Vec<Arc<Seat>>>,
}

/// One connection, as the table sees it.
struct Seat {
    phase: AtomicU8,
    /// Microseconds of the table's time at which the phase began.
    since_us: AtomicU64,
    is_evicted: AtomicBool,
    evicted: Notify,
    /// Its part of what the table holds.
    holds: AtomicU64,
    /// Microseconds of the table's time since when its reader has taken nothing; 0 while it does.
    stalled_us: AtomicU64,
}

/// A connection's seat; given back when the last holder drops it.
pub(crate) struct Place {
    table: Arc<Table>,
    caller: Caller,
    seat: Arc<Seat>,
}

/// A connection as the handler of a request sees it: in the request's extensions. A handler that takes the connection over
/// for another protocol holds it to that protocol's end.
#[derive(Clone)]
pub struct Guest(pub(crate) Arc<Place>);

impl Guest {
    /// Its client has proved who it is: it makes room for nobody, and no longer counts against its address.
    pub fn keep(&self) {
        self.0.enter(Phase::Kept);
    }

    /// Resolves when the connection has to make room for another one.
    pub async fn evicted(&self) {
        self.0.evicted().await;
    }
}

impl Seats {
    /// A seat for a connection from there, which may be another one's until now; `None` where all are taken by connections
    /// that do not wait for their clients.
    pub(crate) fn take(&self, caller: Caller, room: Room) -> Option<Place> {
        let mut state = self.0.state.lock();
        if state.counted(&caller) >= room.per_caller {
            state.evict_of(&caller)?;
        } else if state.all >= room.all {
            let largest = state.largest()?;
            state.evict_of(&largest)?;
        }
        let seat = Arc::new(Seat {
            phase: AtomicU8::new(Phase::Fresh as u8),
            since_us: AtomicU64::new(self.0.now_us()),
            is_evicted: AtomicBool::new(false),
            evicted: Notify::new(),
            holds: AtomicU64::new(0),
            stalled_us: AtomicU64::new(0),
        });
        state.all += 1;
        state.callers.entry(caller).or_default().push(seat.clone());
        Some(Place {
            table: self.0.clone(),
            caller,
            seat,
        })
    }

    /// So many of those that wait for their clients go, wherever they are from.
    pub(crate) fn shed(&self, count: usize) {
        let mut state = self.0.state.lock();
        for _ in 0..count {
            let Some(caller) = state.largest() else { return };
            if state.evict_of(&caller).is_none() {
                return;
            }
        }
    }

    /// Connections that were told to go and still have their descriptors.
    pub(crate) fn leaving(&self) -> usize {
        self.0.state.lock().leaving
    }
}

impl Table {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Readers that have stalled go until answers hold no more than this, those first who hold most together. Whoever reads,
    /// however slowly, has stalled for a shorter time.
    fn cut_stalled(&self, bytes_max: u64) {
        let mut state = self.state.lock();
        while self.held.load(Ordering::Relaxed) > bytes_max {
            let Some((caller, at)) = state.most_stalled() else {
                return;
            };
            if let Some(seat) = state.evict(&caller, at) {
                self.release(&seat, u64::MAX);
            }
        }
    }

    /// So much of what the seat holds is gone.
    fn release(&self, seat: &Seat, bytes: u64) {
        let take = |holds: u64| Some(holds.saturating_sub(bytes));
        let held = seat.holds.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let held = held.expect("it always gives a value");
        self.held.fetch_sub(held.min(bytes), Ordering::Relaxed);
    }
}

impl State {
    fn counted(&self, caller: &Caller) -> usize {
        let seats = self.callers.get(caller);
        seats.map_or(0, |seats| {
            seats.iter().filter(|seat| seat.phase() != Phase::Kept).count()
        })
    }

    /// Who has the most connections that can go; of equals, whose oldest is the oldest.
    fn largest(&self) -> Option<Caller> {
        let of_each = self.callers.iter().filter_map(|(caller, seats)| {
            let expendable = seats.iter().filter_map(|seat| seat.expendable());
            let (count, first) = expendable.fold((0_usize, None::<(u8, u64)>), |(count, first), next| {
                (count + 1, Some(first.map_or(next, |first| next.min(first))))
            });
            Some((count, std::cmp::Reverse(first?), *caller))
        });
        of_each
            .max_by_key(|(count, first, _)| (*count, *first))
            .map(|(_, _, caller)| caller)
    }

    /// The oldest of the caller's that waits for its client is told to go.
    fn evict_of(&mut self, caller: &Caller) -> Option<()> {
        let seats = self.callers.get(caller)?;
        let expendable = seats.iter().enumerate();
        let expendable = expendable.filter_map(|(at, seat)| Some((seat.expendable()?, at)));
        let (_, at) = expendable.min()?;
        self.evict(caller, at).map(drop)
    }

    fn evict(&mut self, caller: &Caller, at: usize) -> Option<Arc<Seat>> {
        let seat = self.remove(caller, at)?;
        seat.is_evicted.store(true, Ordering::Relaxed);
        seat.evicted.notify_one();
        self.leaving += 1;
        Some(seat)
    }

    /// Of the caller whose stalled readers hold most, the one that has stalled longest.
    fn most_stalled(&self) -> Option<(Caller, usize)> {
        let of_each = self.callers.iter().filter_map(|(caller, seats)| {
            let stalled = seats.iter().enumerate().filter_map(|(at, seat)| {
                let (since, holds) = (
                    seat.stalled_us.load(Ordering::Relaxed),
                    seat.holds.load(Ordering::Relaxed),
                );
                (since > 0 && holds > 0).then_some((since, at, holds))
            });
            let stalled: Vec<_> = stalled.collect();
            let (_, at, _) = stalled.iter().min()?;
            let holds: u64 = stalled.iter().map(|(_, _, holds)| holds).sum();
            Some((holds, *caller, *at))
        });
        of_each
            .max_by_key(|(holds, _, _)| *holds)
            .map(|(_, caller, at)| (caller, at))
    }

    fn remove(&mut self, caller: &Caller, at: usize) -> Option<Arc<Seat>> {
        let seats = self.callers.get_mut(caller)?;
        let seat = seats.swap_remove(at);
        if seats.is_empty() {
            self.callers.remove(caller);
        }
        self.all -= 1;
        Some(seat)
    }
}

impl Seat {
    fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Relaxed))
    }

    /// What it can be pushed out by, the lowest first.
    fn expendable(&self) -> Option<(u8, u64)> {
        let rank = self.phase().expendable()?;
        Some((rank, self.since_us.load(Ordering::Relaxed)))
    }
}

impl Place {
    pub(crate) fn phase(&self) -> Phase {
        self.seat.phase()
    }

    /// When the phase began, in the table's time.
    pub(crate) fn since_us(&self) -> u64 {
        self.seat.since_us.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.seat.since_us.store(self.table.now_us(), Ordering::Relaxed);
        self.seat.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// An answer of this length is on its way; large ones hold at most `bytes_max` together.
    pub(crate) fn answers(&self, bytes: u64, bytes_max: u64) {
        /// Smaller ones are counted by their connections.
        const SMALL_BYTES: u64 = 64 << 10;
        if bytes <= SMALL_BYTES {
            return;
        }
        self.seat.holds.fetch_add(bytes, Ordering::Relaxed);
        if self.table.held.fetch_add(bytes, Ordering::Relaxed) + bytes > bytes_max {
            self.table.cut_stalled(bytes_max);
        }
    }

    /// The reader has taken so much.
    pub(crate) fn sent(&self, bytes: u64) {
        self.seat.stalled_us.store(0, Ordering::Relaxed);
        if self.seat.holds.load(Ordering::Relaxed) > 0 {
            self.table.release(&self.seat, bytes);
        }
    }

    /// The reader takes nothing, from now on.
    pub(crate) fn stalls(&self) {
        self.seat
            .stalled_us
            .store(self.table.now_us().max(1), Ordering::Relaxed);
    }

    /// Resolves when it has to make room. Cancel safe; one waits at a time.
    pub(crate) async fn evicted(&self) {
        while !self.seat.is_evicted.load(Ordering::Relaxed) {
            self.seat.evicted.notified().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.release(&self.seat, u64::MAX);
        let mut state = self.table.state.lock();
        if self.seat.is_evicted.load(Ordering::Relaxed) {
            state.leaving -= 1;
            return;
        }
        let seats = state.callers.get(&self.caller);
        let at = seats.and_then(|seats| seats.iter().position(|seat| Arc::ptr_eq(seat, &self.seat)));
        if let Some(at) = at {
            state.remove(&self.caller, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { all: 6, per_caller: 4 };

    fn from(last: u8) -> Caller {
        Caller([10, 0, 0, last].into())
    }

    fn is_evicted(place: &Place) -> bool {
        place.seat.is_evicted.load(Ordering::Relaxed)
    }

    #[test]
    fn the_oldest_silent_one_of_an_address_makes_room() {
        let seats = Seats::default();
        let other = seats.take(from(2), ROOM).expect("room");
        let own: Vec<_> = (0..4).map(|_| seats.take(from(1), ROOM).expect("room")).collect();
        own[0].enter(Phase::Busy);
        own[1].enter(Phase::Idle);
        let next = seats.take(from(1), ROOM).expect("another goes");
        let gone: Vec<bool> = own.iter().map(is_evicted).collect();
        assert_eq!(
            gone,
            [false, false, true, false],
            "the oldest that has asked for nothing"
        );
        assert!(!is_evicted(&other));
        assert_eq!(seats.leaving(), 1);
        for place in [&own[1], &own[3], &next] {
            place.enter(Phase::Busy);
        }
        assert!(seats.take(from(1), ROOM).is_none(), "all of them are at work");
        drop(own);
        assert_eq!(seats.leaving(), 0);
        assert!(seats.take(from(1), ROOM).is_some(), "places are given back");
    }

    #[test]
    fn who_has_most_makes_room_where_all_is_taken() {
        let seats = Seats::default();
        let few = seats.take(from(9), ROOM).expect("room");
        let many: Vec<_> = (0..4).map(|_| seats.take(from(1), ROOM).expect("room")).collect();
        let more = seats.take(from(2), ROOM).expect("room");
        let _next = seats.take(from(3), ROOM).expect("another goes");
        assert!(is_evicted(&many[0]) && !is_evicted(&few) && !is_evicted(&more));
        seats.shed(100);
        assert!([&few, &many[3], &more].into_iter().all(is_evicted));
    }

    #[test]
    fn readers_that_stall_go_where_answers_hold_too_much() {
        const MIB: u64 = 1 << 20;
        let seats = Seats::default();
        let place = |last| seats.take(from(last), ROOM).expect("room");
        let (slow, deaf, other) = (place(1), [place(2), place(2)], place(3));
        for place in [&slow, &deaf[0], &deaf[1]] {
            place.answers(3 * MIB, 10 * MIB);
            place.enter(Phase::Busy);
        }
        deaf[0].stalls();
        std::thread::sleep(std::time::Duration::from_micros(10));
        deaf[1].stalls();
        slow.stalls();
        slow.sent(1);
        other.answers(MIB / 32, MIB);
        assert!(!is_evicted(&deaf[0]), "a small answer counts for nothing");
        other.answers(2 * MIB, 10 * MIB);
        assert!(is_evicted(&deaf[0]), "it has stalled longest, where most is held");
        assert!(!is_evicted(&deaf[1]) && !is_evicted(&slow) && !is_evicted(&other));
        other.answers(6 * MIB, 10 * MIB);
        assert!(
            is_evicted(&deaf[1]) && !is_evicted(&slow),
            "who reads stays, and so does the next"
        );
        slow.sent(3 * MIB);
        drop((slow, deaf, other));
        assert_eq!(seats.0.held.load(Ordering::Relaxed), 0, "all is given back, once");
    }

    #[test]
    fn who_has_proved_who_it_is_does_not_count_against_its_address() {
        let seats = Seats::default();
        let kept: Vec<_> = (0..4).map(|_| seats.take(from(1), ROOM).expect("room")).collect();
        kept.iter().for_each(|place| place.enter(Phase::Kept));
        let fifth = seats.take(from(1), ROOM).expect("room");
        assert!(!kept.iter().any(is_evicted) && !is_evicted(&fifth));
        fifth.enter(Phase::Busy);
        let _sixth = seats.take(from(1), ROOM).expect("room");
        _sixth.enter(Phase::Busy);
        assert!(seats.take(from(2), ROOM).is_none(), "but among all");
    }
}
