//! Indexes and manifests, as far as an image is found by them: pure.

use piecework_model::Rejection;
use serde::{Deserialize, Serialize};

use crate::{
    DOCUMENT_BYTES_MAX, LAYERS_MAX, Sha256, bad,
    description::{other_platform, own_architecture},
    too_large,
};

/// Entries of an index, and indexes within indexes.
const ENTRIES_MAX: usize = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(super) media_type: String,
    pub(super) digest: Sha256,
    pub(super) size: u64,
    #[serde(default, skip_serializing)]
    platform: Option<Platform>,
    #[serde(default, skip_serializing)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, digest: Sha256, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        }
    }
}

impl Manifest {
    pub(super) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            config,
            layers,
        }
    }
}

/// What a document of a registry or a layout is.
pub(super) enum Document {
    Manifest(Manifest),
    /// The manifest of this platform is elsewhere.
    Index(Descriptor),
}

pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest, Rejection> {
    match document(bytes)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(bad("an index was found where the image's manifest should be")),
    }
}

pub(super) fn document(bytes: &[u8]) -> Result<Document, Rejection> {
    #[derive(Deserialize)]
    struct Looked {
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let invalid = |error: serde_json::Error| bad(format!("this is not a manifest of an image: {error}"));
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(too_large("the image's manifest is too large"));
    }
    let looked: Looked = serde_json::from_slice(bytes).map_err(invalid)?;
    match (looked.config.is_some(), looked.manifests.is_some()) {
        (true, _) => {
            let manifest: Manifest = serde_json::from_slice(bytes).map_err(invalid)?;
            match manifest.layers.len() <= LAYERS_MAX {
                true => Ok(Document::Manifest(manifest)),
                false => Err(too_large(format!("an image has at most {LAYERS_MAX} layers"))),
            }
        }
        (false, true) => choose(serde_json::from_slice(bytes).map_err(invalid)?).map(Document::Index),
        (false, false) => Err(bad("this is neither a manifest nor an index of an image")),
    }
}

/// The one of this platform; one that names none may be.
fn choose(index: Index) -> Result<Descriptor, Rejection> {
    if index.manifests.len() > ENTRIES_MAX {
        return Err(too_large("the image's index has too many entries"));
    }
    let is_ours = |entry: &&Descriptor| {
        let platform = entry.platform.as_ref();
        platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == own_architecture())
    };
    let found = index.manifests.iter().find(is_ours);
    let found = found.or_else(|| index.manifests.iter().find(|entry| entry.platform.is_none()));
    if let Some(found) = found {
        return Ok(found.clone());
    }
    let known = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
    let known: Vec<String> = known
        .filter(|platform| platform.os != "unknown")
        .take(20)
        .map(|platform| format!("{}/{}", platform.os, platform.architecture))
        .collect();
    match known.is_empty() {
        true => Err(bad("the index names no image")),
        false => Err(other_platform(format!(
            "the image is for {}, and images here run on linux/{}",
            known.join(", "),
            own_architecture()
        ))),
    }
}

/// The name that a layout gives an image.
pub(super) fn name_in(bytes: &[u8]) -> Option<String> {
    let index: Index = serde_json::from_slice(bytes).ok()?;
    let [only] = &index.manifests[..] else { return None };
    only.annotations.get("org.opencontainers.image.ref.name").cloned()
}
