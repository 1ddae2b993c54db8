//! Tells the operator: by a webhook of the operator's own, at any address, or by a command.
//!
//! A webhook's body is signed like that of a result. A command reads a mail from its standard input, so that
//! `sendmail ops@example.org` is one; `PIECEWORK_ALERT` has the webhook's body.

use std::{error::Error as _, fmt, process::Stdio, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::{Client, Url, redirect};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command as Process},
};

use crate::{CourierError, courier::trusting_nobody, sign};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Longer than a mail server needs to take a mail.
const NOTIFY_WITHIN: Duration = Duration::from_secs(30);

/// What an operator is told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The same in each attempt.
    pub id: String,
    /// One line.
    pub title: String,
    /// Sentences.
    pub text: String,
    /// JSON text: the body of a webhook.
    pub body: Bytes,
}

/// Why a channel did not take a notice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    #[error("the webhook answered {0}")]
    Answered(u16),
    #[error("the webhook did not answer: {0}")]
    NoAnswer(&'static str),
    #[error("the command ended with status {0}")]
    Failed(i32),
    #[error("the command was ended by a signal")]
    Killed,
    #[error("the command did not end within 30 s")]
    TooLong,
    #[error("the command could not be started")]
    NotStarted,
}

/// A way to tell the operator.
#[async_trait]
pub trait Notify: Send + Sync {
    /// What it is called among the others.
    fn name(&self) -> &'static str;

    /// `Ok` once it has the notice. Takes half a minute at most. Cancel safe: then it may have it.
    async fn notify(&self, notice: &Notice) -> Result<(), Unheard>;
}

/// Posts notices to one address.
pub struct Webhook {
    client: Client,
    url: Url,
    /// Empty: notices are not signed.
    key: Vec<u8>,
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the address is not an http or https URL")]
    Address,
    #[error("the secret begins with `whsec_`, and what follows is not base64")]
    Secret,
    #[error(transparent)]
    Client(#[from] CourierError),
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook")
    }
}

impl Webhook {
    /// `secret`: `whsec_` and base64, or any other text.
    pub fn new(url: &str, secret: Option<&str>) -> Result<Self, WebhookError> {
        let url = Url::parse(url).map_err(|_| WebhookError::Address)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(WebhookError::Address);
        }
        let key = sign::key(secret).ok_or(WebhookError::Secret)?;
        // Some other part may have chosen one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_WITHIN)
                .timeout(NOTIFY_WITHIN)
                .user_agent(concat!("piecework/", env!("CARGO_PKG_VERSION")))
        };
        let client = match builder().build() {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(
                    cause = ?error.source().map(ToString::to_string),
                    "no trusted certificates on this machine: alerts cannot be sent to https addresses until they are installed"
                );
                let tls = trusting_nobody().map_err(CourierError::from)?;
                builder()
                    .tls_backend_preconfigured(tls)
                    .build()
                    .map_err(CourierError::from)?
            }
        };
        Ok(Self { client, url, key })
    }
}

#[async_trait]
impl Notify for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn notify(&self, notice: &Notice) -> Result<(), Unheard> {
        let seconds = Timestamp::now().as_second();
        let mut request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", &notice.id)
            .header("webhook-timestamp", seconds.to_string())
            .body(notice.body.clone());
        if !self.key.is_empty() {
            let signature = sign::webhook(&self.key, &notice.id, seconds, &notice.body);
            request = request.header("webhook-signature", signature);
        }
        let answer = request.send().await.map_err(|error| {
            // The error's own text has the URL, which may have a secret in it.
            Unheard::NoAnswer(match (error.is_connect(), error.is_timeout()) {
                (true, _) => "no connection",
                (false, true) => "it took too long",
                (false, false) => "the connection broke",
            })
        })?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(Unheard::Answered(status.as_u16())),
        }
    }
}

/// Runs a command of the operator's for each notice, by the shell.
#[derive(Clone, Debug)]
pub struct Command {
    line: String,
    within: Duration,
}

impl Command {
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            within: NOTIFY_WITHIN,
        }
    }
}

#[async_trait]
impl Notify for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    async fn notify(&self, notice: &Notice) -> Result<(), Unheard> {
        let mut process = Process::new("/bin/sh")
            .args(["-c", &self.line])
            .env("PIECEWORK_ALERT", String::from_utf8_lossy(&notice.body).as_ref())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                tracing::warn!(%error, "the command for alerts could not be started");
                Unheard::NotStarted
            })?;
        let mut group = Group::of(&process);
        let mut input = process.stdin.take().expect("it is a pipe");
        let mail = mail(notice);
        let run = async {
            // A command may not read it.
            let _ = input.write_all(mail.as_bytes()).await;
            drop(input);
            let status = process.wait().await;
            // It is no longer a child of this process: another may get its number.
            group.0 = None;
            status
        };
        match tokio::time::timeout(self.within, run).await {
            Err(_) => Err(Unheard::TooLong),
            Ok(Err(_)) => Err(Unheard::NotStarted),
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(status.code().map_or(Unheard::Killed, Unheard::Failed)),
        }
    }
}

/// A command's processes, for as long as it runs: they end when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: &Child) -> Self {
        let id = leader.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error says that none of it is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// RFC 5322, of what is said: no line of it begins another header.
fn mail(notice: &Notice) -> String {
    let title: String = notice
        .title
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!(
        "Subject: {title}\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nAuto-Submitted: auto-generated\n\n{}\n",
        notice.text
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use axum::{Router, body::Bytes as Sent, extract::State, http::HeaderMap, http::StatusCode, routing::post};
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use tokio::sync::mpsc;

    use super::*;

    fn notice() -> Notice {
        Notice {
            id: "alert_1".to_owned(),
            title: "the disk\nis full".to_owned(),
            text: "It is.".to_owned(),
            body: Bytes::from_static(br#"{"rule":"disk"}"#),
        }
    }

    type Heard = mpsc::UnboundedSender<(HeaderMap, Sent)>;

    async fn server(status: StatusCode) -> (String, mpsc::UnboundedReceiver<(HeaderMap, Sent)>) {
        let (heard, hears) = mpsc::unbounded_channel();
        let answer = move |State(heard): State<Arc<Heard>>, headers: HeaderMap, body: Sent| async move {
            heard.send((headers, body)).expect("the test is there");
            status
        };
        let app = Router::new().route("/hook", post(answer)).with_state(Arc::new(heard));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, hears)
    }

    #[tokio::test]
    async fn a_webhook_gets_the_body_signed_by_the_secret() {
        let (url, mut hears) = server(StatusCode::NO_CONTENT).await;
        let secret = STANDARD.encode("a secret of the operator");
        let webhook = Webhook::new(&url, Some(&format!("whsec_{secret}"))).expect("a webhook");
        webhook.notify(&notice()).await.expect("it is heard");
        let (headers, body) = hears.recv().await.expect("a request");
        let header = |name: &str| headers[name].to_str().expect("text").to_owned();
        assert_eq!(
            (header("webhook-id"), &body[..]),
            ("alert_1".to_owned(), &notice().body[..])
        );
        let seconds = header("webhook-timestamp").parse().expect("seconds");
        let due = sign::webhook(b"a secret of the operator", "alert_1", seconds, &body);
        assert_eq!(header("webhook-signature"), due);
    }

    #[tokio::test]
    async fn a_webhook_that_refuses_or_is_gone_has_not_heard() {
        let (url, _hears) = server(StatusCode::SERVICE_UNAVAILABLE).await;
        let webhook = Webhook::new(&url, None).expect("a webhook");
        assert_eq!(webhook.notify(&notice()).await, Err(Unheard::Answered(503)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/?token=secret", listener.local_addr().expect("an address"));
        drop(listener);
        let gone = Webhook::new(&url, None).expect("a webhook");
        let unheard = gone.notify(&notice()).await.expect_err("nobody is there");
        assert_eq!(unheard, Unheard::NoAnswer("no connection"));
        assert!(!unheard.to_string().contains("secret") && !format!("{gone:?}").contains("secret"));
        assert!(matches!(Webhook::new("ftp://x/", None), Err(WebhookError::Address)));
        assert!(matches!(
            Webhook::new("http://x/", Some("whsec_?")),
            Err(WebhookError::Secret)
        ));
    }

    #[tokio::test]
    async fn a_command_gets_a_mail_and_says_by_its_status_whether_it_was_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mail");
        let line = format!("cat > {0}; printf '%s' \"$PIECEWORK_ALERT\" > {0}.json", path.display());
        Command::new(line).notify(&notice()).await.expect("it is taken");
        let mail = fs::read_to_string(&path).expect("a mail");
        assert!(mail.starts_with("Subject: the disk is full\n"), "{mail}");
        assert!(mail.ends_with("\n\nIt is.\n"), "{mail}");
        let json = fs::read(path.with_extension("json")).expect("the body");
        assert_eq!(json, &notice().body[..]);
        assert_eq!(Command::new("exit 3").notify(&notice()).await, Err(Unheard::Failed(3)));
        assert_eq!(Command::new("kill -9 $$").notify(&notice()).await, Err(Unheard::Killed));
        let endless = Command {
            within: Duration::from_millis(20),
            ..Command::new("exec sleep 1000")
        };
        assert_eq!(endless.notify(&notice()).await, Err(Unheard::TooLong));
    }

    #[tokio::test]
    async fn what_a_command_has_started_ends_with_its_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("child");
        let line = format!("sleep 1000 & echo $! > {}; wait", path.display());
        let endless = Command {
            within: Duration::from_millis(500),
            ..Command::new(line)
        };
        assert_eq!(endless.notify(&notice()).await, Err(Unheard::TooLong));
        let child = fs::read_to_string(&path).expect("it was started");
        let state = || fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        // Whoever takes it up may be slow to collect it.
        while !(state().is_empty() || state().contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }
}
