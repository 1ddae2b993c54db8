//! How a command ends: its exit code and its message on standard error.

use std::{fmt, process::ExitCode, time::Duration};

use piecework_api::{ClientError, errors::Refusal};
use piecework_chain::ChainFailure;
use piecework_model::{Code, Rejection, UnknownVersion};

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The function ran and failed: 1.
    Function(Box<Refusal>),
    /// The command line, or a file that it names, is not usable: 2.
    Usage(String),
    /// The server refused: 3.
    Refused {
        refusal: Box<Refusal>,
        retry_after: Option<Duration>,
    },
    /// Nobody answered at this URL: 4.
    NoConnection { url: String, reason: String },
    /// This program or this machine failed: 2.
    Local(anyhow::Error),
}

impl Failure {
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(sentence.into())
    }

    /// What a job's record says of its end.
    pub fn of_job(refusal: Box<Refusal>) -> Self {
        match refusal.code.is_one_of(&OF_THE_FUNCTION) {
            true => Self::Function(refusal),
            false => Self::Refused {
                refusal,
                retry_after: None,
            },
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Function(_) => 1,
            Self::Usage(_) | Self::Local(_) => 2,
            Self::Refused { .. } => 3,
            Self::NoConnection { .. } => 4,
        })
    }

    /// The stable code: the server's if it refused, or that of the local failure.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Function(refusal) | Self::Refused { refusal, .. } => Some(refusal.code.as_str()),
            Self::Local(error) => error.chain().find_map(code_of),
            Self::Usage(_) | Self::NoConnection { .. } => None,
        }
    }

    /// Whether the server answered with this code.
    pub fn is_refusal(&self, code: Code) -> bool {
        match self {
            Self::Function(refusal) | Self::Refused { refusal, .. } => refusal.code == code,
            Self::Usage(_) | Self::NoConnection { .. } | Self::Local(_) => false,
        }
    }
}

impl Failure {
    /// What `--json` shows: the body that a refusal has in HTTP; of other failures the exit code's name is the code.
    pub fn json(&self) -> serde_json::Value {
        let refusal = match self {
            Self::Function(refusal) | Self::Refused { refusal, .. } => {
                serde_json::to_value(refusal).unwrap_or_default()
            }
            Self::Usage(sentence) => serde_json::json!({"code": "usage", "message": sentence}),
            Self::NoConnection { .. } => serde_json::json!({"code": "no_connection", "message": self.to_string()}),
            Self::Local(error) => {
                serde_json::json!({"code": self.code().unwrap_or("failed"), "message": format!("{error:#}")})
            }
        };
        serde_json::json!({ "error": refusal })
    }
}

fn code_of<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a str> {
    let chain = || cause.downcast_ref().map(ChainFailure::code);
    let rejection = || {
        cause
            .downcast_ref()
            .map(|rejection: &'a Rejection| rejection.code.as_str())
    };
    let newer = || unknown_version(cause).map(|_| Code::DirectoryNewer.as_str());
    of_a_role(cause).or_else(chain).or_else(newer).or_else(rejection)
}

#[cfg(target_os = "linux")]
fn of_a_role(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let peer = || cause.downcast_ref().map(piecework_peer::PeerFailure::code);
    let store = || cause.downcast_ref().map(piecework_store::StoreFailure::code);
    peer().or_else(store)
}

#[cfg(not(target_os = "linux"))]
fn of_a_role(_: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    None
}

/// Said by itself, or inside of an error of input, whose own source it is not.
fn unknown_version<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a UnknownVersion> {
    let inside = || cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref();
    cause.downcast_ref().or_else(inside)
}

/// The ledger's engine answers what the world does to it, such as a full disk, with a panic. Each is caught, and comes
/// back as a failure with a code and a sentence: its own words are for a log of `debug`.
pub fn keep_engine_panics_quiet() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or("", |location| location.file());
        match ["commonware-", "chain-simplex"].iter().any(|part| place.contains(part)) {
            true => tracing::debug!(%panic, "the ledger's engine ended"),
            false => usual(panic),
        }
    }));
}

/// Codes of failures caused by the function itself.
const OF_THE_FUNCTION: [Code; 9] = [
    Code::FunctionRaised,
    Code::FunctionDiskFull,
    Code::FunctionTooManyFiles,
    Code::FunctionTooManyProcesses,
    Code::FunctionCrashed,
    Code::FunctionOutOfMemory,
    Code::FunctionOutputTooLarge,
    Code::FunctionOutputInvalid,
    Code::FunctionTimedOut,
];

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { refusal, .. } if refusal.code.is_one_of(&OF_THE_FUNCTION) => Self::Function(refusal),
            ClientError::Refused {
                refusal, retry_after, ..
            } => Self::Refused { refusal, retry_after },
            ClientError::Connection { url, reason } => Self::NoConnection { url, reason },
            ClientError::Foreign { .. } => Self::NoConnection {
                url: String::new(),
                reason: error.to_string(),
            },
            ClientError::BadUrl { .. } => Self::Usage(error.to_string()),
            ClientError::Setup(_) => Self::Local(error.into()),
        }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let hint = rejection
            .hint
            .as_deref()
            .map(|hint| format!("\n  {hint}"))
            .unwrap_or_default();
        Self::Usage(format!("{rejection}{hint}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Local(error)
    }
}

/// What a server refused on the way is shown as it is elsewhere: with its code, its fields and its hint.
fn refused(error: &anyhow::Error) -> Option<&Refusal> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(ClientError::Refused { refusal, .. }) => Some(&**refusal),
        Some(
            ClientError::Connection { .. }
            | ClientError::Foreign { .. }
            | ClientError::BadUrl { .. }
            | ClientError::Setup(_),
        )
        | None => None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(refusal) => write_refusal(f, refusal),
            Self::Refused { refusal, retry_after } => {
                write_refusal(f, refusal)?;
                match retry_after {
                    Some(after) => write!(f, "\n  retry in {} s", after.as_secs().max(1)),
                    None => Ok(()),
                }
            }
            Self::Usage(sentence) => f.write_str(sentence),
            Self::NoConnection { url, reason } if url.is_empty() => f.write_str(reason),
            Self::NoConnection { url, reason } => write!(
                f,
                "cannot connect to {url}: {reason}\n  start a server with `piecework up`, or log in to another with `piecework login URL`"
            ),
            Self::Local(error) => match self.code() {
                Some(code) => write!(f, "{code}: {}", sentence(error, code)),
                None => match refused(error) {
                    Some(refusal) => write_refusal(f, refusal),
                    None => write!(f, "{error:#}"),
                },
            },
        }
    }
}

/// All causes; a rejection whose code is already shown appears without it, and with its hint.
fn sentence(error: &anyhow::Error, said: &str) -> String {
    let causes = error.chain().map(|cause| match cause.downcast_ref::<Rejection>() {
        Some(rejection) if rejection.code.as_str() == said => match &rejection.hint {
            Some(hint) => format!("{}\n  {hint}", rejection.message),
            None => rejection.message.clone(),
        },
        Some(_) | None => cause.to_string(),
    });
    causes.collect::<Vec<_>>().join(": ")
}

fn write_refusal(f: &mut fmt::Formatter<'_>, refusal: &Refusal) -> fmt::Result {
    write!(f, "{}: {}", refusal.code, refusal.message)?;
    if let Some(field) = &refusal.field {
        write!(f, " (at {field})")?;
    }
    for fault in &refusal.fields {
        write!(f, "\n  {}: {}", fault.path, fault.message)?;
    }
    if let Some(stack) = detail(refusal, "stack").filter(|stack| !stack.trim().is_empty()) {
        write!(f, "\n{}", stack.trim_end())?;
    }
    for (provider, reason) in reasons(refusal) {
        write!(f, "\n  {provider}: {reason}")?;
    }
    if let Some(job) = refusal.job_id {
        write!(f, "\n  job {job}")?;
    }
    match &refusal.hint {
        Some(hint) => write!(f, "\n  {hint}"),
        None => Ok(()),
    }
}

/// Why each provider was passed over, and how many more for the same reason.
fn reasons(refusal: &Refusal) -> Vec<(String, String)> {
    let details = refusal.details.as_ref();
    let named = details.and_then(|details| details.get("reasons")?.as_array());
    let text = |entry: &serde_json::Value, name: &str| entry.get(name)?.as_str().map(str::to_owned);
    let named = named.into_iter().flatten();
    let named = named.filter_map(|entry| Some((text(entry, "provider")?, spaced(&text(entry, "reason")?))));
    let others = details.and_then(|details| details.get("others")?.as_object());
    let others = others.into_iter().flatten();
    let others = others.map(|(reason, count)| (format!("{count} more"), spaced(reason)));
    named.chain(others).collect()
}

/// `no_free_slot` as people write it.
fn spaced(reason: &str) -> String {
    reason.replace('_', " ")
}

fn detail<'a>(refusal: &'a Refusal, name: &str) -> Option<&'a str> {
    refusal.details.as_ref()?.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> Failure {
        let refusal = Box::new(Refusal::new(code, "a sentence").hint("do this"));
        ClientError::Refused {
            status: 400,
            refusal,
            retry_after: None,
        }
        .into()
    }

    #[test]
    fn each_end_has_the_exit_code_of_the_interface() {
        let code = |failure: Failure| format!("{:?}", failure.exit_code());
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(refused(Code::FunctionRaised)), expected(1));
        assert_eq!(code(refused(Code::FunctionTimedOut)), expected(1));
        assert_eq!(code(Failure::usage("x")), expected(2));
        assert_eq!(code(refused(Code::FunctionNotFound)), expected(3));
        assert_eq!(code(refused(Code::AuthMissingToken)), expected(3));
        let lost = ClientError::Connection {
            url: "http://h".into(),
            reason: "refused".into(),
        };
        assert_eq!(code(lost.into()), expected(4));
    }

    #[test]
    fn a_refusal_is_shown_as_code_message_and_hint() {
        assert_eq!(
            refused(Code::JobNotFound).to_string(),
            "job.not_found: a sentence\n  do this"
        );
    }

    #[test]
    fn why_each_provider_was_passed_over_is_shown() {
        let mut refusal = Refusal::new(Code::ProviderNone, "no provider can take the job").hint("try again");
        refusal.details = Some(serde_json::json!({
            "reasons": [{"provider": "laptop", "reason": "too_dear"}], "others": {"no_free_slot": 12}}));
        let failure: Failure = ClientError::Refused {
            status: 503,
            refusal: Box::new(refusal),
            retry_after: None,
        }
        .into();
        assert_eq!(
            failure.to_string(),
            format!(
                "{}: no provider can take the job\n  laptop: too dear\n  12 more: no free slot\n  try again",
                Code::ProviderNone
            )
        );
        assert_eq!(failure.json()["error"]["code"], Code::ProviderNone.as_str());
        assert_eq!(Failure::usage("no such thing").json()["error"]["code"], "usage");
    }

    #[test]
    fn what_fails_here_is_shown_with_its_code_first() {
        let listen = ChainFailure::BadUrl {
            url: "h".into(),
            detail: "no scheme".into(),
        };
        let failure = Failure::Local(anyhow::Error::new(listen).context("cannot start the ledger"));
        let said = failure.to_string();
        assert!(
            said.starts_with("chain.bad_url: cannot start the ledger: `h`"),
            "{said}"
        );
        let used = Rejection::new(Code::DirectoryInUse, "a sentence").hint("do this");
        let said = Failure::Local(used.into()).to_string();
        assert_eq!(said, "directory.in_use: a sentence\n  do this");
    }

    #[test]
    fn a_lost_connection_names_the_url_and_the_way_to_start() {
        let failure = Failure::NoConnection {
            url: "http://h:1".into(),
            reason: "refused".into(),
        };
        let said = failure.to_string();
        assert!(said.contains("http://h:1") && said.contains("piecework up"), "{said}");
    }
}
