//! A provider's standing: the record of its results that could be checked.
//!
//! ```text
//! new --- right results ---> known --- right results ---> trusted
//!  ^ '--------- a wrong result, or claims too high in a row ---------> suspended
//!  '------------------- right reference results in a row -------------------'
//! ```
//! Trust decides how often results are checked (adaptive replication, as in volunteer computing: D. Anderson, "BOINC: A
//! Platform for Volunteer Computing", 2019), and whether a function that asks for more gets it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::Trust;

/// What was found about one provider, and what follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// From 0 to [`SCORE_MAX`]; a right result takes it a tenth of the way up, a wrong one to 0.
    pub score: u32,
    pub right: u64,
    pub wrong: u64,
    /// Receipts refused for claiming more than was ordered or seen.
    pub overclaimed: u64,
    /// Of those, how many since the last right result.
    pub overclaimed_in_a_row: u32,
    pub suspended: bool,
    /// Right reference results since it was suspended.
    pub redeemed: u32,
    /// CPU microseconds for a unit of the reference job, when it last ran it; none if never.
    pub cpu_us_per_unit: Option<u32>,
    /// When it last got a reference job.
    pub reference_at_ms: u64,
}

pub const SCORE_MAX: u32 = 1_000;
/// Four right results: 1 - 0.9^4 = 0.34.
const KNOWN_SCORE: u32 = 300;
/// Sixteen right results: 1 - 0.9^16 = 0.81.
const TRUSTED_SCORE: u32 = 800;
/// One may be a clock that jumped, three in a row are a habit.
const OVERCLAIMS_MAX: u32 = 3;
/// Right reference results in a row that end a suspension.
const REDEEMING: u32 = 3;

/// A finding about a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The same result as another provider's.
    Right,
    /// Another result than the one that is known, or that others agree on; or a receipt for something else.
    Wrong,
    /// The result differs from one other provider's, and nobody can tell which is right.
    Doubtful,
    /// A receipt that claims more than was ordered or seen.
    Overclaimed,
    /// The right result of a reference job, and the CPU time of one unit of it.
    ReferenceRight { cpu_us_per_unit: Option<u32> },
}

impl Standing {
    pub fn note(&mut self, finding: Finding) {
        match finding {
            Finding::Right => self.note_right(),
            Finding::Wrong => {
                self.wrong += 1;
                self.suspend();
            }
            Finding::Doubtful => self.score /= 2,
            Finding::Overclaimed => {
                self.overclaimed += 1;
                self.overclaimed_in_a_row += 1;
                self.score /= 2;
                if self.overclaimed_in_a_row >= OVERCLAIMS_MAX {
                    self.suspend();
                }
            }
            Finding::ReferenceRight { cpu_us_per_unit } => {
                self.cpu_us_per_unit = cpu_us_per_unit.or(self.cpu_us_per_unit);
                self.note_right();
                self.redeem();
            }
        }
    }

    fn note_right(&mut self) {
        self.right += 1;
        self.overclaimed_in_a_row = 0;
        if !self.suspended {
            self.score += (SCORE_MAX - self.score.min(SCORE_MAX)) / 10;
        }
    }

    fn suspend(&mut self) {
        self.score = 0;
        self.suspended = true;
        self.redeemed = 0;
    }

    fn redeem(&mut self) {
        if self.suspended {
            self.redeemed += 1;
            if self.redeemed >= REDEEMING {
                self.suspended = false;
                self.overclaimed_in_a_row = 0;
            }
        }
    }

    pub fn trust(&self) -> Trust {
        match self.score {
            _ if self.suspended => Trust::Suspended,
            TRUSTED_SCORE.. => Trust::Trusted,
            KNOWN_SCORE.. => Trust::Known,
            _ => Trust::New,
        }
    }
}

/// How many percent of a function's jobs run twice at a provider of this trust, where the function asks for `asked`:
/// ten times as many of a newcomer's as of one whose results were right for long.
pub fn rerun_percent(asked: u32, trust: Trust) -> u32 {
    let times = match trust {
        Trust::Suspended | Trust::New => 10,
        Trust::Known => 3,
        Trust::Trusted => 1,
    };
    asked.saturating_mul(times).min(100)
}

/// Whose result is wrong, of two that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    First,
    Second,
    /// Nobody can tell.
    Undecided,
}

/// Finds the provider with the wrong result. Without a third result it is the less trusted one; equal trust, or three
/// different results (the function is then not deterministic), leave it undecided.
pub fn verdict<R: PartialEq>(results: [R; 2], trusts: [Trust; 2], third: Option<R>) -> Verdict {
    let [first, second] = results;
    match third {
        Some(third) if third == first => Verdict::Second,
        Some(third) if third == second => Verdict::First,
        Some(_) => Verdict::Undecided,
        None => match trusts[0].cmp(&trusts[1]) {
            Ordering::Less => Verdict::First,
            Ordering::Greater => Verdict::Second,
            Ordering::Equal => Verdict::Undecided,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REFERENCE: Finding = Finding::ReferenceRight { cpu_us_per_unit: None };

    fn after(findings: impl IntoIterator<Item = Finding>) -> Standing {
        let mut standing = Standing::default();
        findings.into_iter().for_each(|finding| standing.note(finding));
        standing
    }

    fn right(count: usize) -> impl Iterator<Item = Finding> {
        std::iter::repeat_n(Finding::Right, count)
    }

    #[test]
    fn trust_grows_with_right_results() {
        assert_eq!(after([]).trust(), Trust::New);
        assert_eq!(after(right(3)).trust(), Trust::New);
        assert_eq!(after(right(4)).trust(), Trust::Known);
        assert_eq!(after(right(15)).trust(), Trust::Known);
        assert_eq!(after(right(16)).trust(), Trust::Trusted);
    }

    #[test]
    fn one_wrong_result_suspends_and_three_reference_results_redeem_to_new() {
        let wrong = after(right(50).chain([Finding::Wrong]));
        assert_eq!((wrong.trust(), wrong.score), (Trust::Suspended, 0));
        let still = after(right(50).chain([Finding::Wrong, REFERENCE, REFERENCE]).chain(right(9)));
        assert_eq!(still.trust(), Trust::Suspended, "only reference jobs redeem");
        let again = after([
            Finding::Wrong,
            REFERENCE,
            REFERENCE,
            Finding::Wrong,
            REFERENCE,
            REFERENCE,
        ]);
        assert_eq!(again.trust(), Trust::Suspended, "in a row");
        let redeemed = after([Finding::Wrong, REFERENCE, REFERENCE, REFERENCE]);
        assert_eq!((redeemed.trust(), redeemed.score), (Trust::New, 0));
    }

    #[test]
    fn three_claims_too_high_in_a_row_suspend() {
        let over = Finding::Overclaimed;
        assert_eq!(after(right(16).chain([over])).trust(), Trust::Known);
        assert_eq!(after([over, over, Finding::Right, over, over]).trust(), Trust::New);
        assert_eq!(after([over, over, over]).trust(), Trust::Suspended);
    }

    #[test]
    fn who_is_alone_with_a_result_is_wrong() {
        let equal = [Trust::New; 2];
        assert_eq!(verdict([1, 2], equal, Some(1)), Verdict::Second);
        assert_eq!(verdict([1, 2], equal, Some(2)), Verdict::First);
        assert_eq!(verdict([1, 2], [Trust::Known, Trust::New], Some(2)), Verdict::First);
        assert_eq!(verdict([1, 2], equal, Some(3)), Verdict::Undecided);
        assert_eq!(verdict([1, 2], equal, None), Verdict::Undecided);
        assert_eq!(verdict([1, 2], [Trust::New, Trust::Known], None), Verdict::First);
        assert_eq!(verdict([1, 2], [Trust::Trusted, Trust::Known], None), Verdict::Second);
    }

    #[test]
    fn the_last_measurement_stands() {
        let measured = |cpu_us_per_unit| Finding::ReferenceRight { cpu_us_per_unit };
        let standing = after([measured(Some(900)), measured(Some(1_100)), measured(None)]);
        assert_eq!(standing.cpu_us_per_unit, Some(1_100));
    }

    #[test]
    fn newcomers_are_checked_ten_times_as_often() {
        assert_eq!(rerun_percent(1, Trust::New), 10);
        assert_eq!(rerun_percent(1, Trust::Trusted), 1);
        assert_eq!(rerun_percent(40, Trust::Known), 100);
        assert_eq!(rerun_percent(0, Trust::New), 0);
    }

    proptest! {
        /// Nobody is trusted whose last findings were bad, whatever came before; and no history overflows.
        #[test]
        fn nobody_is_trusted_right_after_a_wrong_result(steps in prop::collection::vec(0u8..5, 0..200)) {
            let mut standing = Standing::default();
            for step in steps {
                let all = [Finding::Right, Finding::Wrong, Finding::Doubtful, Finding::Overclaimed, REFERENCE];
                let finding = all[usize::from(step)];
                let before = standing.trust();
                standing.note(finding);
                prop_assert!(standing.score <= SCORE_MAX);
                match finding {
                    Finding::Wrong => prop_assert_eq!(standing.trust(), Trust::Suspended),
                    Finding::Doubtful | Finding::Overclaimed => prop_assert!(standing.trust() <= before),
                    Finding::Right | Finding::ReferenceRight { .. } => prop_assert!(standing.trust() >= before),
                }
            }
        }
    }
}
