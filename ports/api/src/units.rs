//! Limits as people write them: `5s`, `128MiB`.

use std::{fmt, time::Duration};

use serde::{
    Deserializer,
    de::{Error, Visitor},
};

/// `250ms`, `5s`, `2m`, `1h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration: use a whole number with ms, s, m, h or d, like 500ms, 5s or 2m");
    let (digits, unit) = split(text);
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(bad)
}

/// A duration in milliseconds that a timeout can take.
pub fn timeout_ms(text: &str) -> Result<u32, String> {
    let duration = duration(text)?;
    u32::try_from(duration.as_millis()).map_err(|_| format!("`{text}` is too long: a timeout is at most 15m"))
}

/// `128MiB`, `1GiB`; whole MiB.
pub fn memory_mb(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is not a size: use whole MiB or GiB, like 128MiB or 1GiB");
    let (digits, unit) = split(text);
    let number: u32 = digits.parse().map_err(|_| bad())?;
    match unit {
        "MiB" | "mib" | "M" | "m" => Ok(number),
        "GiB" | "gib" | "G" | "g" => number.checked_mul(1_024).ok_or_else(bad),
        "MB" | "GB" | "mb" | "gb" => Err(format!("`{text}` is not a size: use MiB or GiB (powers of two)")),
        _ => Err(bad()),
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A limit in a body: a whole number of the unit that its field's name ends in, or text with a unit.
struct Limit {
    expected: &'static str,
    read: fn(&str) -> Result<u32, String>,
}

impl Visitor<'_> for Limit {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let number = u32::try_from(number).map_err(|_| E::custom(format_args!("{number} is too large")));
        number.map(Some)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        (self.read)(text).map(Some).map_err(E::custom)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// `timeout_ms` or `timeout`.
pub(crate) fn timeout<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<u32>, D::Error> {
    reader.deserialize_any(Limit {
        expected: "whole milliseconds, or a duration such as \"5s\"",
        read: timeout_ms,
    })
}

/// `memory_limit_mb` or `memory`.
pub(crate) fn memory<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<u32>, D::Error> {
    reader.deserialize_any(Limit {
        expected: "whole MiB, or a size such as \"128MiB\"",
        read: memory_mb,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::{CreateFunction, UpdateFunction};

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in [
            "5",
            "s",
            "",
            "-1s",
            "1.5s",
            "5 s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            let said = duration(bad).expect_err(bad);
            assert!(said.contains("500ms, 5s or 2m"), "{said}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two() {
        assert_eq!(memory_mb("128MiB"), Ok(128));
        assert_eq!(memory_mb("1GiB"), Ok(1_024));
        assert!(memory_mb("128MB").expect_err("decimal").contains("MiB"));
        for bad in ["128", "MiB", "", "4294967295GiB", "1.5GiB"] {
            assert!(memory_mb(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_may_name_its_limits_without_a_unit_and_give_one() {
        let limits = |timeout: &str, memory: &str| {
            let body = format!(r#"{{"name": "a", "language": "python", "code": "x", {timeout}, {memory}}}"#);
            let body: CreateFunction = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            Ok::<_, String>((body.timeout_ms, body.memory_limit_mb))
        };
        let both = Ok((Some(5_000), Some(256)));
        assert_eq!(limits(r#""timeout": "5s""#, r#""memory": "256MiB""#), both);
        assert_eq!(limits(r#""timeout": 5000"#, r#""memory": 256"#), both);
        assert_eq!(limits(r#""timeout_ms": 5000"#, r#""memory_limit_mb": "256MiB""#), both);
        assert_eq!(limits(r#""timeout": null"#, r#""memory": null"#), Ok((None, None)));
        for (bad, said) in [
            (r#""timeout": "5""#, "500ms, 5s or 2m"),
            (r#""timeout": 5.5"#, "whole milliseconds"),
            (r#""timeout": -1"#, "whole milliseconds"),
            (r#""timeout": 4294967296"#, "too large"),
            (r#""timeout": 1, "timeout_ms": 1"#, "duplicate field"),
        ] {
            let error = limits(bad, r#""memory": 1"#).expect_err(bad);
            assert!(error.contains(said), "{error}");
        }
        let update: UpdateFunction = serde_json::from_str(r#"{"memory": "1GiB"}"#).expect("valid");
        assert_eq!((update.timeout_ms, update.memory_limit_mb), (None, Some(1_024)));
    }
}
