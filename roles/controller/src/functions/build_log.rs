//! What is said while a deploy makes a version: kept with the version, or among the last that failed; for its developer alone.

use std::{fmt::Display, time::Instant};

use piecework_api::{build_logs::BuildLogView, errors::Refusal};
use piecework_model::{AccountId, Code, FunctionId, FunctionName};
use piecework_store::{BuildLog as Kept, Function};

use crate::{
    Answer,
    accounts::auth::Caller,
    clock::{now_ms, timestamp},
    failure::{refuse, rejected, store},
    functions::{self, Functions},
};

/// Of one deploy: what pip says of some hundred packages.
const BYTES_MAX: usize = 64 << 10;
const CUT: &str = "[cut: a build log has at most 64 KiB]\n";
/// In place of a secret's value, as in the logs of jobs.
const HIDDEN: &str = "[secret]";

/// Of one deploy, as far as it has come.
#[derive(Default)]
pub(crate) struct BuildLog {
    text: String,
    is_cut: bool,
    /// Values that may be in it and must not be kept.
    secrets: Vec<String>,
}

impl BuildLog {
    /// What the platform has to say.
    pub(crate) fn say(&mut self, line: impl Display) {
        self.add(&format!("{line}\n"));
    }

    /// What a tool said.
    pub(crate) fn quote(&mut self, said: &str) {
        for line in said.lines() {
            self.add(&format!("  {line}\n"));
        }
    }

    /// The time since then, as it is said.
    pub(crate) fn since(then: Instant) -> String {
        format!("{:.1} s", then.elapsed().as_secs_f64())
    }

    /// These values are taken out before it is kept.
    pub(crate) fn hide(&mut self, secrets: Vec<String>) {
        self.secrets = secrets;
    }

    fn shown(self) -> String {
        let hide = |text: String, secret: &String| text.replace(secret.as_str(), HIDDEN);
        self.secrets.iter().fold(self.text, hide)
    }

    fn add(&mut self, line: &str) {
        if self.is_cut {
            return;
        }
        let line = without_credentials(line);
        if self.text.len() + line.len() + CUT.len() > BYTES_MAX {
            self.is_cut = true;
            return self.text.push_str(CUT);
        }
        self.text.push_str(&line);
    }

    /// Keeps it with the function's new version. A deploy does not fail for its log.
    pub(crate) async fn keep(self, functions: &Functions, function: &Function, number: u32) {
        let version = Some((function.id, number));
        self.put(functions, (function.owner, function.name.clone()), version)
            .await;
    }

    /// Keeps it among those of deploys that failed, with why. Nothing where nothing had begun.
    pub(crate) async fn keep_failed(self, functions: &Functions, whose: (AccountId, FunctionName), why: &Refusal) {
        if self.text.is_empty() {
            return;
        }
        // What a tool said last is part of it, and often longer than the rest.
        let mut failed = self;
        failed.is_cut = false;
        let mut reason = format!("failed: {}: {}\n", why.code, without_credentials(&why.message));
        reason.truncate(reason.floor_char_boundary(BYTES_MAX / 4));
        let room = failed.text.floor_char_boundary(BYTES_MAX - reason.len() - CUT.len());
        if failed.text.len() > room {
            failed.text.truncate(room);
            failed.text.push('\n');
        }
        failed.text.push_str(&reason);
        failed.put(functions, whose, None).await;
    }

    async fn put(
        self,
        functions: &Functions,
        (owner, name): (AccountId, FunctionName),
        version: Option<(FunctionId, u32)>,
    ) {
        let log = Kept {
            owner,
            name,
            version,
            at_ms: now_ms(),
            text: self.shown(),
        };
        if let Err(error) = functions.ground.store.put_build_log(&log).await {
            tracing::warn!(%error, function = %log.name, "a build log was not kept");
        }
    }
}

/// The text without what signs in: what stands before the last `@` of a URL, values of `token=` and the like in its query, and
/// what follows `Authorization:`. An index of packages is often named with its password. Before anything is cut, which could part
/// one from its `@`.
fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let at = line
            .to_ascii_lowercase()
            .find(AUTHORIZATION)
            .map(|at| at + AUTHORIZATION.len());
        let (words, header) = line.split_at(at.unwrap_or(line.len()));
        for word in words.split_inclusive(ends_url) {
            shown.push_str(&without_login(word));
        }
        match header.trim().is_empty() {
            true => shown.push_str(header),
            false => shown.extend([" ", HIDDEN, if line.ends_with('\n') { "\n" } else { "" }]),
        }
    }
    shown
}

const AUTHORIZATION: &str = "authorization:";
/// How names of parameters end, in small letters.
const PARAMETERS: [&str; 5] = ["token", "password", "passwd", "secret", "key"];

fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`')
}

/// Of what may be a URL: `https://user:password@host/`, also without its scheme.
fn without_login(word: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(word.len()), word);
    while let Some(at) = rest.find("//") {
        let (before, after) = rest.split_at(at + 2);
        shown.push_str(before);
        rest = match login_ends(after) {
            Some(at) => {
                shown.push_str(HIDDEN);
                &after[at..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    without_parameters(&shown)
}

/// `?token=value&` without the value.
fn without_parameters(url: &str) -> String {
    let mut shown = String::with_capacity(url.len());
    for (number, part) in url.split_inclusive(['?', '&']).enumerate() {
        match part.split_once('=') {
            Some((name, value)) if number > 0 && is_secret(name) => {
                let rest = value
                    .find(|c| matches!(c, '&' | '?' | '#') || ends_url(c))
                    .map_or("", |end| &value[end..]);
                shown.extend([name, "=", HIDDEN, rest]);
            }
            _ => shown.push_str(part),
        }
    }
    shown
}

fn is_secret(parameter: &str) -> bool {
    let name = parameter.to_ascii_lowercase();
    PARAMETERS.iter().any(|secret| name.ends_with(secret))
}

/// Where the `@` behind user and password is. What follows a colon and is no port is a password, in which a slash may be.
fn login_ends(url: &str) -> Option<usize> {
    let authority = &url[..url.find(['/', '?', '#', '\\']).unwrap_or(url.len())];
    authority.rfind('@').or_else(|| {
        let (_, port) = authority.split_once(':')?;
        let is_port = port.bytes().all(|digit| digit.is_ascii_digit());
        url.rfind('@').filter(|_| !is_port)
    })
}

fn view(log: Kept) -> BuildLogView {
    BuildLogView {
        function: log.name.to_string(),
        version: log.version.map(|(_, number)| number),
        at: Some(timestamp(log.at_ms)),
        text: log.text,
    }
}

/// Of a version of the function. Refuses with `version.not_found`.
pub(crate) async fn of_version(functions: &Functions, function: &Function, number: u32) -> Answer<BuildLogView> {
    let kept = functions.ground.store.build_log(function.id, number);
    if let Some(log) = kept.await.map_err(store)? {
        return Ok(view(log));
    }
    let version = functions
        .ground
        .store
        .version(function.id, number)
        .await
        .map_err(store)?;
    if version.is_none() {
        let message = format!("`{}` has no version {number}", function.name);
        return refuse(Code::VersionNotFound, message);
    }
    Ok(BuildLogView {
        function: function.name.to_string(),
        version: Some(number),
        at: None,
        text: String::new(),
    })
}

/// Of the caller's last deploys that failed, newest first.
pub(crate) async fn failed(
    functions: &Functions,
    caller: &Caller,
    function: Option<&str>,
) -> Answer<Vec<BuildLogView>> {
    let name = match function {
        Some(id) if id.starts_with("fn_") => Some(functions::own(functions, caller, id).await?.function.name.clone()),
        Some(name) => Some(name.parse().map_err(rejected)?),
        None => None,
    };
    let logs = functions
        .ground
        .store
        .failed_builds(caller.account, name.as_ref())
        .await;
    Ok(logs.map_err(store)?.into_iter().map(view).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_at_its_bound_and_says_so_once() {
        let mut log = BuildLog::default();
        for _ in 0..3 {
            log.quote(&"é".repeat(BYTES_MAX / 5));
        }
        log.say("the end");
        assert!(log.text.len() <= BYTES_MAX);
        assert!(log.text.ends_with(CUT) && log.text.matches("[cut").count() == 1);
    }

    #[test]
    fn credentials_in_urls_are_no_part_of_a_log() {
        let mut log = BuildLog::default();
        log.quote("Looking in indexes: https://me:pa@ss@index.example:8/simple?at=me@x, 'git+ssh://git@host'");
        log.say("see https://example.org/@scope/a@1 and a://b://c:d@e");
        assert_eq!(
            log.shown(),
            "  Looking in indexes: https://[secret]@index.example:8/simple?at=me@x, 'git+ssh://[secret]@host'\n\
             see https://example.org/@scope/a@1 and a://b://[secret]@e\n"
        );
    }

    #[test]
    fn credentials_in_other_places_are_no_part_of_a_log() {
        let mut log = BuildLog::default();
        log.say("https://u:pa/ss@host/x and //u:p@host, git+https://oauth2:t@host/x.git");
        log.say("GET https://host:80/a@1?x=1&Token=abc#top, npm:left-pad@1 costs ?key=2");
        log.say("sent Authorization: Basic dTpw");
        assert_eq!(
            log.shown(),
            "https://[secret]@host/x and //[secret]@host, git+https://[secret]@host/x.git\n\
             GET https://host:80/a@1?x=1&Token=[secret]#top, npm:left-pad@1 costs ?key=[secret]\n\
             sent Authorization: [secret]\n"
        );
    }

    #[test]
    fn secrets_are_no_part_of_a_log() {
        let mut log = BuildLog::default();
        log.quote("Error: no login with s3cr3t-value");
        log.hide(vec!["s3cr3t-value".to_owned()]);
        log.say("s3cr3t-value");
        assert_eq!(log.shown(), "  Error: no login with [secret]\n[secret]\n");
    }
}
