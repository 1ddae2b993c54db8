//! A container image from scratch, as the archive that `docker load` and `podman load` read.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    Release,
    tree::{FILE, PROGRAM, Tree},
};

/// Where the state is; a volume.
const STATE: &str = "/var/lib/piecework";
/// Of this machine, so that a container can check whom it talks to.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The image's archive, tagged `piecework:VERSION` and `piecework:latest`.
pub fn image(release: &Release, program: &[u8]) -> Result<Vec<u8>> {
    let layer = layer(program)?.tar("", release.epoch)?;
    let layer_digest = hex(&layer);
    let created = release.created();
    let config = serde_json::to_vec(&json!({
        "created": created,
        "architecture": release.debian_architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/piecework"],
            "Cmd": ["up", "--data", format!("{STATE}/up"), "--listen", "0.0.0.0:7433"],
            "Env": [format!("HOME={STATE}"), "XDG_CACHE_HOME=/var/cache", "PATH=/usr/bin"],
            "WorkingDir": "/",
            "ExposedPorts": { "7433/tcp": {}, "7440/tcp": {}, "7441/tcp": {} },
            "Volumes": { STATE: {}, "/var/cache/piecework": {} },
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": "piecework",
                "org.opencontainers.image.version": release.version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created": created, "created_by": "xtask dist" }],
    }))?;
    let config_digest = hex(&config);
    let manifest = json!([{
        "Config": format!("{config_digest}.json"),
        "RepoTags": [format!("piecework:{}", release.version), "piecework:latest"],
        "Layers": [format!("{layer_digest}/layer.tar")],
    }]);
    let mut archive = Tree::default();
    archive.put("manifest.json", FILE, serde_json::to_vec(&manifest)?);
    archive.put(format!("{config_digest}.json"), FILE, config);
    archive.put(format!("{layer_digest}/layer.tar"), FILE, layer);
    archive.tar("", release.epoch)
}

/// Nothing but the program and what it expects to be there.
fn layer(program: &[u8]) -> Result<Tree> {
    let mut layer = Tree::default();
    layer.put("usr/bin/piecework", PROGRAM, program);
    layer.put(
        "etc/passwd",
        FILE,
        format!("root:x:0:0:root:{STATE}:/usr/bin/piecework\n"),
    );
    layer.put("etc/group", FILE, "root:x:0:\n");
    layer.put("etc/nsswitch.conf", FILE, "hosts: files dns\n");
    for (directory, mode) in [
        ("tmp", 0o1777),
        ("proc", 0o555),
        ("sys", 0o555),
        ("dev", 0o755),
        (STATE.trim_start_matches('/'), 0o755),
        ("var/cache/piecework", 0o755),
    ] {
        layer.directory(directory, mode);
    }
    if fs::exists(AUTHORITIES).unwrap_or(false) {
        let certificates = fs::read(AUTHORITIES).with_context(|| format!("read {AUTHORITIES}"))?;
        layer.put(AUTHORITIES.trim_start_matches('/'), FILE, certificates);
    }
    Ok(layer)
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
