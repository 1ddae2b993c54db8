//! The part of a provider's slots that is kept for developers that hold few of them.
//!
//! ```text
//! slots  |---------------- anybody's ----------------|-- for those with few --|-- for those with none --|
//!                                                     <---- outer reserve ---> <---- inner reserve ----->
//! ```
//! One developer alone fills all but the reserve. The more slots a developer holds, the more of the reserve is closed to
//! it; the inner half is open only to developers that hold none.
//!
//! *Bound.* The free slots and the developers that hold one are together always more than the inner reserve. So a
//! developer that holds none starts at once unless more developers than the inner reserve has slots hold some there. If
//! they do, a slot comes free when the first of their jobs ends, at the latest after the longest time limit, and goes to
//! the developer that has had the least.
//!
//! Memory is kept in the same part for developers that hold no slot: their first call needs both. One that is larger than
//! what is free waits for memory.

/// One in so many slots is in reserve.
const PART: u32 = 8;
/// A provider with fewer slots keeps none back: one of two or three would be too large a part.
const SLOTS_MIN: u32 = 4;

/// Slots that no developer with many jobs gets.
pub(super) fn size(slots: u32) -> u32 {
    if slots < SLOTS_MIN { 0 } else { slots.div_ceil(PART) }
}

/// The part of the reserve that is for developers without a job there.
pub(super) fn inner(slots: u32) -> u32 {
    size(slots).div_ceil(2)
}

/// How many free slots of a provider with `slots` are not for a developer that holds `held` of them.
pub(super) fn kept_back(slots: u32, held: u32) -> u32 {
    if held == 0 {
        return 0;
    }
    inner(slots).saturating_add(held).min(size(slots))
}

/// How much of the memory of a provider with `slots` is not for a developer that holds `held` of them: the same part.
pub(super) fn kept_bytes(slots: u32, held: u32, bytes: u64) -> u64 {
    match size(slots) == 0 || held == 0 {
        true => 0,
        false => bytes / u64::from(PART),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_a_developer_holds_the_more_is_closed_to_it() {
        assert_eq!((size(128), inner(128)), (16, 8));
        let kept: Vec<u32> = [0, 1, 2, 7, 8, 100].map(|held| kept_back(128, held)).into();
        assert_eq!(kept, [0, 9, 10, 15, 16, 16]);
        assert_eq!([0, 1, 3, 4, 8, 9, 16].map(size), [0, 0, 0, 1, 1, 2, 2]);
        assert_eq!((inner(4), kept_back(4, 1), kept_back(3, 3)), (1, 1, 0));
    }
}
