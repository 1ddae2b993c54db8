//! Which controller a command talks to, and with which token.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use piecework_api::Client;
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, places, private};

/// What `login` remembers, in a file of mode 0600.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub url: String,
    pub token: String,
    pub account: String,
}

/// A URL with the token that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Choice {
    url: String,
    token: Option<String>,
}

/// What can be chosen from.
#[derive(Debug, Default)]
struct Known {
    url: Option<String>,
    token: Option<String>,
    login: Option<Login>,
    /// URL and token that `up` left in its data directory.
    local: Option<(String, String)>,
}

/// The environment first, then the login, then what runs on this machine. A remembered token is only ever sent to the
/// URL that it was remembered for.
fn choose(known: Known) -> Option<Choice> {
    let login = known.login.map(|login| (login.url, login.token));
    let url = known
        .url
        .or_else(|| login.as_ref().or(known.local.as_ref()).map(|(url, _)| url.clone()))?;
    let same = |(theirs, _): &(String, String)| theirs.trim_end_matches('/') == url.trim_end_matches('/');
    let remembered = login
        .filter(same)
        .or_else(|| known.local.filter(same))
        .map(|(_, token)| token);
    Some(Choice {
        token: known.token.or(remembered),
        url,
    })
}

/// The client for this command.
pub fn connect() -> Result<Client, Failure> {
    let choice = choose(known()?).ok_or_else(|| Failure::NoConnection {
        url: String::new(),
        reason: "found no server: none runs from the default directory, and no login is remembered\n  \
                 start one with `piecework up`, or log in with `piecework login URL`\n  \
                 for one that runs with `--data DIR`: export PIECEWORK_URL=$(cat DIR/url) PIECEWORK_TOKEN=$(cat DIR/token)"
            .into(),
    })?;
    Ok(Client::new(&choice.url, choice.token)?)
}

/// Why a command for this computer's provider finds none.
pub fn none_but_up() -> Result<&'static str, Failure> {
    Ok(match known()?.local {
        Some(_) => {
            "no `piecework provide` runs on this computer\n  the provider inside `piecework up` has no limits and cannot be drained or \
             paused: `piecework provider status` shows it, and `piecework up --no-provider` starts without it"
        }
        None => "no provider runs on this computer; start one with `piecework provide`",
    })
}

fn known() -> Result<Known, Failure> {
    let left_in =
        |data: &Path| -> Result<_, Failure> { Ok(read_line(&data.join("url"))?.zip(read_line(&data.join("token"))?)) };
    let local = match left_in(&places::default_data_dir()?)? {
        Some(local) => Some(local),
        // Of the service that a package starts; only root can read it.
        None => left_in(&Path::new(places::SYSTEM_STATE_DIR).join("up"))?,
    };
    Ok(Known {
        url: places::url_override(),
        token: places::token_override(),
        login: remembered()?,
        local,
    })
}

fn read_line(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(anyhow::Error::new(error)
            .context(format!("cannot read {}", path.display()))
            .into()),
    }
}

/// The remembered login.
pub fn remembered() -> Result<Option<Login>, Failure> {
    let path = places::login_file()?;
    let Some(text) = read_line(&path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Failure::usage(format!(
            "{} is not a login file: {error}\n  remove it with `piecework logout`",
            path.display()
        ))
    })
}

/// Remembers a login in place of any other.
pub fn remember(login: &Login) -> Result<(), Failure> {
    let path = places::login_file()?;
    let text = serde_json::to_string_pretty(login).context("a login is plain JSON")?;
    write_private(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Whether there was one to forget.
pub fn forget() -> Result<bool, Failure> {
    let path = places::login_file()?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(anyhow::Error::new(error)
            .context(format!("cannot remove {}", path.display()))
            .into()),
    }
}

/// A file that only its owner reads, from its first moment on; renamed into place, so that it is whole or absent.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let folder = path.parent().expect("the file lies in a folder");
    fs::create_dir_all(folder)?;
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let mut file = private::create_new(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Option<Login> {
        Some(Login {
            url: "http://there".into(),
            token: "theirs".into(),
            account: "ada".into(),
        })
    }

    fn local() -> Option<(String, String)> {
        Some(("http://here".into(), "ours".into()))
    }

    fn choice(url: &str, token: Option<&str>) -> Option<Choice> {
        Some(Choice {
            url: url.into(),
            token: token.map(Into::into),
        })
    }

    #[test]
    fn a_login_goes_before_what_runs_here() {
        assert_eq!(
            choose(Known {
                login: login(),
                local: local(),
                ..Known::default()
            }),
            choice("http://there", Some("theirs"))
        );
        assert_eq!(
            choose(Known {
                local: local(),
                ..Known::default()
            }),
            choice("http://here", Some("ours"))
        );
        assert_eq!(choose(Known::default()), None);
    }

    #[test]
    fn a_remembered_token_is_never_sent_to_another_url() {
        let elsewhere = Known {
            url: Some("http://else".into()),
            login: login(),
            local: local(),
            token: None,
        };
        assert_eq!(choose(elsewhere), choice("http://else", None));
        let here = Known {
            url: Some("http://here/".into()),
            login: login(),
            local: local(),
            token: None,
        };
        assert_eq!(choose(here), choice("http://here/", Some("ours")));
    }

    #[test]
    fn the_environment_overrides() {
        let known = Known {
            url: Some("http://e".into()),
            token: Some("t".into()),
            login: login(),
            local: local(),
        };
        assert_eq!(choose(known), choice("http://e", Some("t")));
    }

    #[test]
    fn a_written_login_is_private_and_replaces_the_one_before() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/login.json");
        write_private(&path, "one").expect("written");
        write_private(&path, "two").expect("written again");
        assert_eq!(fs::read_to_string(&path).expect("there"), "two");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }
}
