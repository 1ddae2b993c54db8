//! Amounts as people type them: durations, sizes, credits, NAME=VALUE.

use std::str::FromStr;

pub use piecework_api::units::{duration, memory_mb, timeout_ms};
use piecework_api::{functions::PriceCap, results::SetResults};
use piecework_model::{PublicKey, Rejection};

/// The base of links: `http://` or `https://` with a host, without a path; a slash at its end is dropped.
pub fn base_url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).ok();
    let is_base = url.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/" && url.query().is_none()
    });
    match is_base {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("expected a URL like https://piecework.example.org".to_owned()),
    }
}

/// A name that an authority can prove by looking at the server.
pub fn domain(text: &str) -> Result<String, String> {
    if text.starts_with("*.") {
        let more = "an authority proves a wildcard only by DNS: name each host, or let Caddy or certbot obtain the certificate";
        return Err(more.to_owned());
    }
    if !text.is_ascii() {
        return Err("write it as DNS has it, beginning with xn--".to_owned());
    }
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_number = text.rsplit('.').next().is_some_and(|last| last.parse::<u64>().is_ok());
    match text.len() <= 253 && !is_number && text.split('.').all(is_label) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("expected a name like piecework.example.org".to_owned()),
    }
}

/// A mail address, roughly: the authority says what else is wrong.
pub fn mail(text: &str) -> Result<String, String> {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    match text.split_once('@') {
        Some((local, host)) if is_word(local) && is_word(host) && !host.contains('@') => Ok(text.to_owned()),
        Some(_) | None => Err("expected a mail address like ops@example.org".to_owned()),
    }
}

/// The URL of an ACME directory.
pub fn https_url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).ok();
    match url.is_some_and(|url| url.scheme() == "https" && url.has_host()) {
        true => Ok(text.to_owned()),
        false => Err("expected an https URL like https://acme-v02.api.letsencrypt.org/directory".to_owned()),
    }
}

/// So long ago, or a time.
pub fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = duration(text)
        .map_err(|_| format!("`{text}` is neither a duration like 10m nor a time like 2026-03-01T12:00:00Z"))?;
    jiff::Timestamp::now()
        .checked_sub(ago)
        .map_err(|_| format!("`{text}` is too long ago"))
}

/// As [`memory_mb`], or 0 for nothing.
pub fn stream_mb(text: &str) -> Result<u32, String> {
    match text {
        "0" => Ok(0),
        _ => memory_mb(text),
    }
}

/// Whole `ucr`, as `250` or `250ucr`, or credits as `1.5cr`.
pub fn credits_ucr(text: &str) -> Result<i128, String> {
    let bad =
        || format!("`{text}` is not an amount: use whole micro-credits like 250 or 250ucr, or credits like 1.5cr");
    if let Some(credits) = text
        .strip_suffix("ucr")
        .or(text.strip_suffix("cr").is_none().then_some(text))
    {
        return credits.parse::<u64>().map(i128::from).map_err(|_| bad());
    }
    let credits = text.strip_suffix("cr").ok_or_else(bad)?;
    let (whole, fraction) = credits.split_once('.').unwrap_or((credits, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 12 || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return Err(bad());
    }
    format!("{whole}{fraction:0<6}").parse().map_err(|_| bad())
}

/// `cpu=300,start=2`: the most that a provider may ask for; `none` for no caps.
pub fn price_cap(text: &str) -> Result<PriceCap, String> {
    let bad =
        || format!("`{text}` is not a list of price caps: use start, cpu, memory and egress, like cpu=300,start=2");
    let mut cap = PriceCap::default();
    for part in text.split(',').filter(|part| *part != "none") {
        let (name, ucr) = part.split_once('=').ok_or_else(bad)?;
        let ucr = Some(budget_ucr(ucr)?);
        match name {
            "start" => cap.start_ucr = ucr,
            "cpu" => cap.cpu_ucr_per_s = ucr,
            "memory" => cap.memory_ucr_per_gib_s = ucr,
            "egress" => cap.egress_ucr_per_mib = ucr,
            _ => return Err(bad()),
        }
    }
    Ok(cap)
}

/// An amount that a budget can be.
pub fn budget_ucr(text: &str) -> Result<u64, String> {
    u64::try_from(credits_ucr(text)?).map_err(|_| format!("`{text}` is larger than any possible budget"))
}

/// `20%`, `2.5%`: in thousandths.
pub fn permille(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is not a percentage: use 0% to 100%, like 5% or 2.5%");
    let number = text.strip_suffix('%').ok_or_else(bad)?;
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let digits = format!("{whole}{tenth}");
    if whole.is_empty() || tenth.len() != 1 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u32 = digits.parse().map_err(|_| bad())?;
    Some(number).filter(|permille| *permille <= 1_000).ok_or_else(bad)
}

/// `3`, or `v3` as it is shown.
pub fn version(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix('v').unwrap_or(text).parse().ok();
    let positive = number.filter(|number| *number > 0);
    positive.ok_or_else(|| format!("`{text}` is not a version: use a number like 3, as shown by `piecework versions`"))
}

/// Where to listen, in numbers: a name may stand for several addresses.
pub fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not ADDR:PORT: use a numeric address and a port up to 65535, like 127.0.0.1:7433")
    })
}

/// `v3=90` or `3=90`: a version and its share.
pub fn share(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once('=')
        .and_then(|(version, share)| Some((self::version(version).ok()?, share.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not a version's share: use the form v3=90"))
}

/// `NAME=VALUE`; the value may be empty and hold further `=`.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` does not have the form NAME=VALUE")),
    }
}

/// Where results go, from a JSON file; `none` for as usual.
pub fn results(path: &str) -> Result<SetResults, String> {
    if path == "none" {
        return Ok(SetResults::default());
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))
}

/// 64 hex digits.
pub fn public_key(text: &str) -> Result<PublicKey, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a public key: expected 64 hex digits"))
}

/// A noun of the platform, with its rejection's hint where it has one.
pub fn noun<T: FromStr<Err = Rejection>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|rejection: Rejection| match rejection.hint {
        Some(hint) => format!("{}: {hint}", rejection.message),
        None => rejection.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_or_is_so_long_ago() {
        assert_eq!(
            since("1970-01-01T00:00:01Z"),
            Ok(jiff::Timestamp::from_second(1).expect("in range"))
        );
        let ago = jiff::Timestamp::now()
            .duration_since(since("10m").expect("a duration"))
            .as_secs();
        // Of whole seconds, and some time has passed.
        assert!((599..660).contains(&ago), "{ago}");
        assert!(since("yesterday").expect_err("no").contains("10m") && since("99999999d").is_err());
    }

    #[test]
    fn price_caps_name_what_they_cap() {
        let cap = price_cap("cpu=300,start=2ucr").expect("caps");
        assert_eq!(
            (cap.cpu_ucr_per_s, cap.start_ucr, cap.egress_ucr_per_mib),
            (Some(300), Some(2), None)
        );
        assert_eq!(price_cap("none"), Ok(PriceCap::default()));
        for bad in ["300", "gpu=1", "cpu=", "cpu=-1"] {
            price_cap(bad).expect_err(bad);
        }
    }

    #[test]
    fn a_stream_may_have_no_room_at_all() {
        assert_eq!((stream_mb("0"), stream_mb("2GiB")), (Ok(0), Ok(2_048)));
        assert!(stream_mb("2").is_err());
    }

    #[test]
    fn amounts_are_ucr_unless_they_say_credits() {
        assert_eq!(credits_ucr("250"), Ok(250));
        assert_eq!(credits_ucr("250ucr"), Ok(250));
        assert_eq!(credits_ucr("1.5cr"), Ok(1_500_000));
        assert_eq!(credits_ucr("0.000001cr"), Ok(1));
        for bad in [
            "",
            "cr",
            "ucr",
            "-1",
            "1.5",
            "1.5ucr",
            "0.0000001cr",
            ".5cr",
            "1.-5cr",
            "+1cr",
        ] {
            assert!(credits_ucr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_name_a_version_and_percentages_are_in_thousandths() {
        assert_eq!((share("v3=90"), share("3=10")), (Ok((3, 90)), Ok((3, 10))));
        assert!(share("v3").is_err() && share("vx=1").is_err() && share("v1=-1").is_err());
        assert_eq!(
            (permille("20%"), permille("2.5%"), permille("100%")),
            (Ok(200), Ok(25), Ok(1_000))
        );
        for bad in ["20", "101%", "-1%", "2.55%", "%", "x%"] {
            assert!(permille(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_and_addresses_are_numbers() {
        assert_eq!((version("3"), version("v3")), (Ok(3), Ok(3)));
        for bad in ["0", "v", "three", "-1", ""] {
            assert!(version(bad).is_err(), "{bad}");
        }
        assert!(address("[::1]:0").is_ok());
        for bad in ["localhost:80", "127.0.0.1", "127.0.0.1:65536"] {
            assert!(address(bad).is_err_and(|said| said.contains("ADDR:PORT")), "{bad}");
        }
    }

    #[test]
    fn a_variable_keeps_every_further_equals_sign() {
        assert_eq!(assignment("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(assignment("A="), Ok(("A".into(), String::new())));
        assert!(assignment("A").is_err() && assignment("=a").is_err());
    }
}
