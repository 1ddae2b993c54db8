//! When a schedule falls due: a cron pattern in a time zone.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use piecework_api::triggers::{Missed, Schedule};
use piecework_model::Code;

use crate::{Answer, failure::refuse};

/// A tick that is noticed later than this was missed: the server was down, or its computer asleep.
const PROMPT_MS: u64 = 60_000;
const PATTERN_LENGTH_MAX: usize = 200;

/// A schedule, ready to be asked.
pub(super) struct Times {
    cron: Cron,
    zone: TimeZone,
    missed: Missed,
}

impl Times {
    /// Refuses with `trigger.bad_schedule`.
    pub(super) fn of(schedule: &Schedule) -> Answer<Self> {
        let pattern = &schedule.cron;
        if pattern.len() > PATTERN_LENGTH_MAX {
            return bad(format!("a cron pattern has at most {PATTERN_LENGTH_MAX} characters"));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = match parser.parse(pattern) {
            Ok(cron) => cron,
            Err(_) => {
                return bad(format!(
                    "`{pattern}` is not a cron pattern; it has five fields (minute, hour, day of month, month, day of \
                     week), such as `*/5 * * * *`"
                ));
            }
        };
        let Ok(zone) = TimeZone::get(&schedule.time_zone) else {
            return bad(format!(
                "`{}` is not a time zone: use a name such as `Europe/Berlin`, or `UTC`",
                schedule.time_zone
            ));
        };
        let times = Self {
            cron,
            zone,
            missed: schedule.missed,
        };
        match times.after(0) {
            Some(_) => Ok(times),
            None => bad(format!("`{pattern}` never falls due")),
        }
    }

    /// The first tick after this moment, both in Unix milliseconds.
    pub(super) fn after(&self, at_ms: u64) -> Option<u64> {
        let next = self.cron.find_next_occurrence(&self.at(at_ms)?, false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }

    /// The tick to run now, of those after `from_ms`: the latest one. One that was missed runs if the schedule says so.
    pub(super) fn due(&self, from_ms: u64, now_ms: u64) -> Option<u64> {
        let latest = self.cron.find_previous_occurrence(&self.at(now_ms)?, true).ok()?;
        let latest = u64::try_from(latest.timestamp().as_millisecond()).ok()?;
        let is_prompt = now_ms.saturating_sub(latest) <= PROMPT_MS;
        (latest > from_ms && (is_prompt || self.missed == Missed::RunLast)).then_some(latest)
    }

    fn at(&self, at_ms: u64) -> Option<Zoned> {
        let at = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
        Some(at.to_zoned(self.zone.clone()))
    }
}

fn bad<T>(message: String) -> Answer<T> {
    refuse(Code::TriggerBadSchedule, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(cron: &str, zone: &str, missed: Missed) -> Times {
        let schedule = Schedule {
            cron: cron.into(),
            time_zone: zone.into(),
            missed,
        };
        Times::of(&schedule).expect("a schedule")
    }

    fn ms(text: &str) -> u64 {
        let at: Timestamp = text.parse().expect("a time");
        at.as_millisecond() as u64
    }

    fn text(at_ms: Option<u64>) -> String {
        crate::clock::timestamp(at_ms.expect("a tick")).to_string()
    }

    #[test]
    fn ticks_are_by_the_clock_of_the_zone_over_its_changes() {
        let berlin = times("30 2 * * *", "Europe/Berlin", Missed::RunLast);
        // Winter, the night without a half past two, summer, and the night with two of them.
        for (from, next) in [
            ("2026-03-27T12:00:00Z", "2026-03-28T01:30:00Z"),
            ("2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
            ("2026-03-29T12:00:00Z", "2026-03-30T00:30:00Z"),
            ("2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            assert_eq!(text(berlin.after(ms(from))), next, "after {from}");
        }
        let weekdays = times("0 9 * * MON-FRI", "America/New_York", Missed::RunLast);
        assert_eq!(text(weekdays.after(ms("2026-11-27T14:00:00Z"))), "2026-11-30T14:00:00Z");
    }

    #[test]
    fn of_missed_ticks_the_last_one_runs_or_none() {
        let (last, none) = (
            times("*/10 * * * *", "UTC", Missed::RunLast),
            times("*/10 * * * *", "UTC", Missed::Skip),
        );
        let (from, now) = (ms("2026-01-01T00:00:00Z"), ms("2026-01-01T00:35:00Z"));
        assert_eq!(text(last.due(from, now)), "2026-01-01T00:30:00Z");
        assert_eq!(none.due(from, now), None, "it was missed");
        let prompt = ms("2026-01-01T00:30:02Z");
        assert_eq!(
            text(none.due(from, prompt)),
            "2026-01-01T00:30:00Z",
            "a late look is no miss"
        );
        assert_eq!(last.due(ms("2026-01-01T00:30:00Z"), now), None, "it ran");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for (cron, zone) in [
            ("", "UTC"),
            ("* * * *", "UTC"),
            ("* * * * * *", "UTC"),
            ("61 * * * *", "UTC"),
            ("0 0 31 2 *", "UTC"),
            ("daily", "UTC"),
            ("* * * * *", "Mars/Phobos"),
            ("* * * * *", "../../etc/passwd"),
            (&"1,".repeat(200), "UTC"),
        ] {
            let schedule = Schedule {
                cron: cron.into(),
                time_zone: zone.into(),
                missed: Missed::Skip,
            };
            let refused = Times::of(&schedule).err().expect("refused");
            assert_eq!(refused.code, Code::TriggerBadSchedule, "{cron} {zone}");
        }
        assert!(text(times("@daily", "UTC", Missed::Skip).after(0)).starts_with("1970-01-02T00:00"));
    }
}
