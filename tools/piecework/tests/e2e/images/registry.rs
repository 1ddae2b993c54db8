//! A registry to pull from.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use piecework_loopback::free_addresses;

use super::made::{Image, sha256};

/// A registry of Debian's on this machine, which ends with the value.
pub(super) struct Registry {
    process: Child,
    pub(super) address: String,
    _folder: tempfile::TempDir,
}

impl Registry {
    pub(super) async fn start(auth: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_addresses(1).expect("a port")[0].to_string();
        let settings = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\", secret: x}}\n{auth}",
            folder.path().join("data").display()
        );
        let file = folder.path().join("settings.yml");
        fs::write(&file, settings).expect("written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "no registry");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self {
            process,
            address,
            _folder: folder,
        }
    }

    pub(super) async fn push(&self, image: &Image, login: Option<(&str, &str)>) {
        // Whoever pushes first has made no client yet.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::new();
        let with = |request: reqwest::RequestBuilder| match login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let base = format!("http://{}/v2/web", self.address);
        for blob in image
            .layers
            .iter()
            .map(|(_, kept)| kept.clone())
            .chain([image.config()])
        {
            let began = with(http.post(format!("{base}/blobs/uploads/")))
                .send()
                .await
                .expect("an answer");
            let at = began.headers()["location"].to_str().expect("an address").to_owned();
            let at = format!("{at}&digest={}", sha256(&blob));
            let put = with(http.put(at)).body(blob).send().await.expect("an answer");
            assert_eq!(put.status().as_u16(), 201);
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let put = with(http.put(format!("{base}/manifests/1")))
            .header("content-type", kind)
            .body(image.manifest());
        assert_eq!(put.send().await.expect("an answer").status().as_u16(), 201);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
