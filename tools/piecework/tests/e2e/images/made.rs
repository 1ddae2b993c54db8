//! Images in memory, in folders and in files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::machine::skipped;

/// The static program of `images/program.rs`; `None` where it cannot be built.
pub(super) fn program() -> Option<&'static [u8]> {
    static BUILT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("program");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/images/program.rs");
        let flags = [
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "panic=abort",
            "-o",
        ];
        let built = Command::new("rustc").args(flags).arg(&to).arg(source).output().ok()?;
        built.status.success().then(|| fs::read(&to).expect("it was built"))
    });
    built.as_deref()
}

pub(super) fn needs() -> Option<&'static [u8]> {
    let program = program();
    if program.is_none() {
        skipped("rustc builds no static program here");
    }
    program
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Entries of a layer, before they are one.
pub(super) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(super) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(super) fn entry(mut self, kind: tar::EntryType, path: &str, (mode, content): (u32, &[u8])) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        // By hand: the library refuses paths that a hostile layer has.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).expect("appended");
        self
    }

    pub(super) fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, (mode, content))
    }

    pub(super) fn directory(self, path: &str) -> Self {
        self.entry(tar::EntryType::Directory, path, (0o755, b""))
    }

    pub(super) fn link(mut self, kind: tar::EntryType, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_size(0);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, &b""[..]).expect("appended");
        self
    }

    pub(super) fn tar(self) -> Vec<u8> {
        self.0.into_inner().expect("whole")
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).expect("written");
    encoder.finish().expect("whole")
}

/// An image in memory.
pub(super) struct Image {
    pub(super) config: Value,
    /// Tar, and as it is kept.
    pub(super) layers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Image {
    pub(super) fn new(config: Value, tars: Vec<Vec<u8>>) -> Self {
        let layers: Vec<_> = tars
            .into_iter()
            .map(|tar| (gzip(&tar), tar))
            .map(|(kept, tar)| (tar, kept))
            .collect();
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| sha256(tar)).collect();
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        Self {
            config: json!({
                "architecture": architecture, "os": "linux", "config": config,
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }),
            layers,
        }
    }

    /// Two layers: files, and a second one that hides some of them.
    pub(super) fn of_the_program(program: &[u8], config: Value) -> Self {
        let first = Layer::new()
            .directory("bin")
            .file("bin/program", 0o4755, program)
            .file("hidden", 0o644, b"x")
            .directory("opaque")
            .file("opaque/old", 0o644, b"x")
            .directory("root")
            .file("etc/passwd", 0o644, b"root:x:0:0::/root:/\nweb:x:33:34::/srv:/\n");
        let second = Layer::new()
            .file(".wh.hidden", 0o644, b"")
            .file("opaque/.wh..wh..opq", 0o644, b"")
            .file("opaque/new", 0o600, b"y");
        Self::new(config, vec![first.tar(), second.tar()])
    }

    /// With layers that are not compressed.
    pub(super) fn uncompressed(mut self) -> Self {
        for (tar, kept) in &mut self.layers {
            kept.clone_from(tar);
        }
        self
    }

    pub(super) fn manifest(&self) -> Vec<u8> {
        let config = self.config();
        let layer = |(_, kept): &(Vec<u8>, Vec<u8>)| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha256(kept), "size": kept.len()});
        serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        }))
        .expect("JSON")
    }

    pub(super) fn config(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config).expect("JSON")
    }

    pub(super) fn layout(&self, folder: &Path) -> PathBuf {
        let at = folder.join("web.oci");
        let blobs = at.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("made");
        let put = |bytes: &[u8]| fs::write(blobs.join(&sha256(bytes)[7..]), bytes).expect("written");
        let manifest = self.manifest();
        put(&manifest);
        put(&self.config());
        self.layers.iter().for_each(|(_, kept)| put(kept));
        let index = json!({"schemaVersion": 2, "manifests": [{"digest": sha256(&manifest), "size": manifest.len()}]});
        fs::write(at.join("index.json"), index.to_string()).expect("written");
        fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        at
    }

    /// As `docker save` wrote it before it wrote layouts.
    pub(super) fn saved(&self, folder: &Path) -> PathBuf {
        let mut archive = tar::Builder::new(Vec::new());
        let mut put = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, bytes).expect("appended");
        };
        let mut names = Vec::new();
        for (place, (tar, _)) in self.layers.iter().enumerate() {
            names.push(format!("{place}/layer.tar"));
            put(&names[place], tar);
        }
        put("config.json", &self.config());
        let listed = json!([{"Config": "config.json", "RepoTags": ["me/web:1"], "Layers": names}]);
        put("manifest.json", listed.to_string().as_bytes());
        let at = folder.join("web.tar");
        fs::write(&at, archive.into_inner().expect("whole")).expect("written");
        at
    }
}
