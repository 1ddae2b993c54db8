//! Who gets the next free slot: developers in turn, by weight, however many jobs each of them has waiting.
//!
//! ```text
//! enter: room and nobody waits -> inside;  else -> its developer's own line
//! leave: the ring's next developer lets in the first of its line; after `weight` of them it is the next one's turn
//! ```
//! A place here is the right to look for a slot; which provider's slot it is, the scheduler says.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use piecework_model::AccountId;
use tokio::sync::oneshot;

use crate::Controller;

#[derive(Default)]
pub(crate) struct Fair(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    capacity: u32,
    inside: u32,
    lines: HashMap<AccountId, Line>,
    /// Developers with somebody in line; the first is whose turn it is.
    ring: VecDeque<AccountId>,
}

struct Line {
    waiting: VecDeque<oneshot::Sender<Place>>,
    weight: u32,
    /// How many more it may let in before the turn passes on.
    left: u32,
}

/// The right to one slot, until dropped.
pub(crate) struct Place(Arc<Mutex<State>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        let_in(&self.0);
    }
}

impl Fair {
    /// How many places there are. More let in who waits.
    pub(crate) fn resize(&self, capacity: u32) {
        self.0.lock().capacity = capacity;
        let_in(&self.0);
    }

    /// A place, at once or when its developer's turn comes. Cancel safe: who goes away leaves the line.
    pub(crate) async fn enter(&self, developer: AccountId, weight: u32) -> Place {
        let receiver = {
            let mut state = self.0.lock();
            if state.ring.is_empty() && state.inside < state.capacity {
                state.inside += 1;
                return Place(self.0.clone());
            }
            state.line_up(developer, weight)
        };
        let_in(&self.0);
        receiver
            .await
            .expect("who stands in line is never sent away: lines live as long as the controller")
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().lines.values().map(|line| line.waiting.len()).sum()
    }
}

impl State {
    fn line_up(&mut self, developer: AccountId, weight: u32) -> oneshot::Receiver<Place> {
        let (sender, receiver) = oneshot::channel();
        let line = self.lines.entry(developer).or_insert_with(|| {
            self.ring.push_back(developer);
            Line {
                waiting: VecDeque::new(),
                weight,
                left: weight,
            }
        });
        line.weight = weight;
        line.waiting.push_back(sender);
        receiver
    }

    /// The next in turn, if there is room.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        if self.inside >= self.capacity {
            return None;
        }
        let developer = *self.ring.front()?;
        let line = self.lines.get_mut(&developer)?;
        let next = line.waiting.pop_front();
        line.left = line.left.saturating_sub(1);
        if line.waiting.is_empty() {
            self.lines.remove(&developer);
            self.ring.pop_front();
        } else if line.left == 0 {
            line.left = line.weight;
            self.ring.rotate_left(1);
        }
        self.inside += u32::from(next.is_some());
        next
    }
}

/// Outside of the lock, as a place that nobody takes any more is dropped at once and locks again.
fn let_in(shared: &Arc<Mutex<State>>) {
    loop {
        let Some(next) = shared.lock().next() else { return };
        if let Err(untaken) = next.send(Place(shared.clone())) {
            shared.lock().inside -= 1;
            // Given back by hand: its own drop would come back here, one level deeper for each that went away.
            std::mem::forget(untaken);
        }
    }
}

/// Keeps the number of places at the number of slots that the providers have now, until shutdown.
pub(crate) async fn keep_size(controller: Arc<Controller>) {
    const EVERY: Duration = Duration::from_millis(200);
    loop {
        controller.fair.resize(slots(&controller));
        tokio::select! {
            () = controller.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// At least one: where no provider is there, callers have to get in to be told so.
fn slots(controller: &Controller) -> u32 {
    let all = controller.providers.all();
    let here = all.iter().filter(|seen| seen.link.is_linked());
    let slots = here.map(|seen| seen.link.profile().slots);
    slots.fold(0, u32::saturating_add).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn developer(number: u8) -> AccountId {
        AccountId([number; 20])
    }

    /// Fills the line of `who`; gives the order in which all get in while one after the other leaves.
    async fn order(lines: &[(u8, u32, usize)]) -> Vec<u8> {
        let fair = Fair::default();
        fair.resize(1);
        let first = fair.enter(developer(0), 1).await;
        let mut order = Vec::new();
        let mut entering = futures::stream::FuturesUnordered::new();
        for &(number, weight, count) in lines {
            for _ in 0..count {
                let mut enter = Box::pin(fair.enter(developer(number), weight));
                assert!(futures::poll!(&mut enter).is_pending());
                entering.push(async move { (number, enter.await) });
            }
        }
        drop(first);
        while let Some((number, place)) = futures::StreamExt::next(&mut entering).await {
            order.push(number);
            drop(place);
        }
        order
    }

    #[tokio::test]
    async fn ten_thousand_of_one_developer_do_not_hold_up_the_one_of_another() {
        let order = order(&[(1, 1, 10_000), (2, 1, 1)]).await;
        let place = order.iter().position(|number| *number == 2);
        assert_eq!(order.len(), 10_001);
        assert!(place.is_some_and(|place| place <= 2), "let in at {place:?}");
    }

    #[tokio::test]
    async fn shares_follow_the_weights() {
        let order = order(&[(1, 1, 100), (2, 3, 100)]).await;
        let of_two = order[..80].iter().filter(|number| **number == 2).count();
        assert_eq!(of_two, 60, "{order:?}");
    }

    #[tokio::test]
    async fn who_goes_away_takes_no_place() {
        let fair = Fair::default();
        fair.resize(1);
        let first = fair.enter(developer(1), 1).await;
        for _ in 0..100 {
            let mut gone = Box::pin(fair.enter(developer(2), 1));
            assert!(futures::poll!(&mut gone).is_pending());
        }
        let mut stays = Box::pin(fair.enter(developer(2), 1));
        assert!(futures::poll!(&mut stays).is_pending());
        drop(first);
        let place = stays.await;
        assert_eq!((fair.waiting(), fair.0.lock().inside), (0, 1));
        drop(place);
        assert_eq!(fair.0.lock().inside, 0);
    }

    #[tokio::test]
    async fn a_place_that_came_too_late_is_passed_on() {
        let fair = Fair::default();
        fair.resize(1);
        let first = fair.enter(developer(1), 1).await;
        let mut late = Box::pin(fair.enter(developer(1), 1));
        assert!(futures::poll!(&mut late).is_pending());
        let mut next = Box::pin(fair.enter(developer(2), 1));
        assert!(futures::poll!(&mut next).is_pending());
        drop(first);
        drop(late);
        drop(next.await);
        assert_eq!(fair.0.lock().inside, 0);
    }
}
