//! The Docker Engine API over its Unix socket: the handful of requests that containers of ours need.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::Value;

/// Of every container that is made here: whose it is.
pub(super) const LABEL: &str = "piecework.agent";
/// What the daemon answers, of RFC 9110.
const DONE: std::ops::Range<u16> = 200..300;
const HAS_IT: u16 = 200;
const HAS_IT_NOT: u16 = 404;
/// It is being removed already.
const IS_AT_IT: u16 = 409;
/// A daemon that hangs is a daemon that does not work.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// What a daemon may say at once, and of that what is told on.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const REASON_BYTES_MAX: usize = 500;

/// A daemon.
#[derive(Clone, Debug)]
pub(super) struct Docker {
    client: Client,
}

#[derive(Debug, Deserialize)]
pub(super) struct Version {
    #[serde(rename = "Version")]
    pub(super) version: String,
}

#[derive(Debug, Deserialize)]
struct About {
    #[serde(rename = "DefaultRuntime")]
    default_runtime: String,
}

#[derive(Debug, Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Labels", default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Tagged {
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Inspected {
    #[serde(rename = "State")]
    state: State,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct State {
    #[serde(rename = "Pid")]
    pub(super) pid: i32,
    #[serde(rename = "OOMKilled")]
    pub(super) out_of_memory: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Waited {
    status_code: i32,
}

#[derive(Debug, Deserialize)]
struct Said {
    message: String,
}

impl Docker {
    pub(super) fn at(socket: PathBuf) -> Result<Self, String> {
        // Nothing here is encrypted, and a client wants to know by what it would be. Set once in a process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().unix_socket(socket).no_proxy().build();
        Ok(Self {
            client: client.map_err(|error| format!("no HTTP client: {error}"))?,
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://docker{path}"))
    }

    pub(super) async fn version(&self) -> Result<Version, String> {
        let request = self.request(Method::GET, "/version").timeout(ANSWERS_WITHIN);
        parsed(&done(answer(request).await?)?)
    }

    pub(super) async fn default_runtime(&self) -> Result<String, String> {
        let request = self.request(Method::GET, "/info").timeout(ANSWERS_WITHIN);
        let info: About = parsed(&done(answer(request).await?)?)?;
        Ok(info.default_runtime)
    }

    pub(super) async fn has_image(&self, name: &str) -> Result<bool, String> {
        let request = self.request(Method::GET, &format!("/images/{name}/json"));
        Ok(answer(request.timeout(ANSWERS_WITHIN)).await?.0 == HAS_IT)
    }

    /// Makes an image of one layer of a tar archive.
    pub(super) async fn import(&self, (repository, tag): (&str, &str), archive: Vec<u8>) -> Result<(), String> {
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}");
        let request = self.request(Method::POST, &path).timeout(ANSWERS_WITHIN);
        let request = request.header("content-type", "application/x-tar").body(archive);
        done(answer(request).await?).map(drop)
    }

    /// The names of a repository's images.
    pub(super) async fn images_of(&self, repository: &str) -> Result<Vec<String>, String> {
        // {"reference":["..."]}
        let path = format!("/images/json?filters=%7B%22reference%22%3A%5B%22{repository}%22%5D%7D");
        let request = self.request(Method::GET, &path).timeout(ANSWERS_WITHIN);
        let listed: Vec<Tagged> = parsed(&done(answer(request).await?)?)?;
        Ok(listed
            .into_iter()
            .flat_map(|one| one.tags.unwrap_or_default())
            .collect())
    }

    /// Fails where a container uses it.
    pub(super) async fn remove_image(&self, name: &str) -> Result<(), String> {
        let request = self.request(Method::DELETE, &format!("/images/{name}"));
        done(answer(request.timeout(ANSWERS_WITHIN)).await?).map(drop)
    }

    pub(super) async fn create(&self, name: &str, body: &Value) -> Result<String, String> {
        let path = format!("/containers/create?name={name}");
        let request = self.request(Method::POST, &path).timeout(ANSWERS_WITHIN);
        let created: Created = parsed(&done(answer(request.json(body)).await?)?)?;
        Ok(created.id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), String> {
        let request = self.request(Method::POST, &format!("/containers/{id}/start"));
        done(answer(request.timeout(ANSWERS_WITHIN)).await?).map(drop)
    }

    pub(super) async fn state(&self, id: &str) -> Result<State, String> {
        let request = self.request(Method::GET, &format!("/containers/{id}/json"));
        let inspected: Inspected = parsed(&done(answer(request.timeout(ANSWERS_WITHIN)).await?)?)?;
        Ok(inspected.state)
    }

    /// Waits for its end, however long that takes: its exit code, 128 and more for a signal.
    pub(super) async fn wait(&self, id: &str) -> Result<i32, String> {
        let request = self.request(Method::POST, &format!("/containers/{id}/wait"));
        let waited: Waited = parsed(&done(answer(request).await?)?)?;
        Ok(waited.status_code)
    }

    /// Whatever it does; also one that is gone.
    pub(super) async fn remove(&self, id: &str) -> Result<(), String> {
        let request = self.request(Method::DELETE, &format!("/containers/{id}?force=true&v=true"));
        match answer(request.timeout(ANSWERS_WITHIN)).await? {
            (HAS_IT_NOT | IS_AT_IT, _) => Ok(()),
            other => done(other).map(drop),
        }
    }

    /// Every container that an agent made, with that agent.
    pub(super) async fn ours(&self) -> Result<Vec<(String, String)>, String> {
        // {"label":["piecework.agent"]}
        let filters = format!("%7B%22label%22%3A%5B%22{LABEL}%22%5D%7D");
        let path = format!("/containers/json?all=true&filters={filters}");
        let request = self.request(Method::GET, &path).timeout(ANSWERS_WITHIN);
        let listed: Vec<Listed> = parsed(&done(answer(request).await?)?)?;
        let with_agent = |one: Listed| (one.id, one.labels.get(LABEL).cloned().unwrap_or_default());
        Ok(listed.into_iter().map(with_agent).collect())
    }
}

async fn answer(request: RequestBuilder) -> Result<(u16, Vec<u8>), String> {
    let mut response = request.send().await.map_err(|error| reason(&error))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| reason(&error))? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Err("the Docker daemon sent too long an answer".to_owned());
        }
        body.extend_from_slice(&part);
    }
    Ok((status, body))
}

/// An error of the client names the request; what matters is at its root.
fn reason(error: &reqwest::Error) -> String {
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    format!("the Docker daemon does not answer: {root}")
}

fn done((status, body): (u16, Vec<u8>)) -> Result<Vec<u8>, String> {
    if DONE.contains(&status) {
        return Ok(body);
    }
    let mut said = match serde_json::from_slice::<Said>(&body) {
        Ok(said) => said.message,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    said.truncate(said.floor_char_boundary(REASON_BYTES_MAX));
    Err(format!("the Docker daemon refused ({status}): {}", said.trim()))
}

fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("the Docker daemon sent an invalid answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_daemons_words_and_bounded() {
        let refused = done((IS_AT_IT, br#"{"message":"no such image"}"#.to_vec()));
        assert_eq!(
            refused.expect_err("it refused"),
            "the Docker daemon refused (409): no such image"
        );
        let long = done((400, vec![b'x'; 10_000]));
        assert!(long.expect_err("it refused").len() < 2 * REASON_BYTES_MAX);
        assert!(parsed::<Version>(b"<html>").is_err());
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_told() {
        let docker = Docker::at("/nonexistent/docker.sock".into()).expect("a client");
        let said = docker.version().await.expect_err("nobody listens");
        assert!(said.contains("does not answer"), "{said}");
    }
}
