//! What a bundle says of an image: its manifest and configuration as they are, where its layers are kept, and how it is run.
//! Anybody may have written any of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use piecework_blobs::{Bundle, BundleLimits};
use piecework_model::{Code, Digest, Rejection};
use serde::{Deserialize, Serialize};

use crate::{DOCUMENT_BYTES_MAX, IMAGE_BYTES_MAX, LAYERS_MAX, Sha256, bad, too_large};

/// The files of an image's bundle.
pub const SETTINGS: &str = "image.json";
pub const MANIFEST: &str = "manifest.json";
pub const CONFIG: &str = "config.json";

/// A layer is kept in parts of this size, but for the last: one is held in memory at a time, wherever it passes.
pub const PART_BYTES: u64 = 4 << 20;
const PORT_DEFAULT: u16 = 8080;
/// Arguments and variables of an image together, as for functions.
const TEXTS_BYTES_MAX: usize = 64 << 10;
const TEXTS_MAX: usize = 512;
const REFERENCE_BYTES_MAX: usize = 400;

/// `image.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// As the developer named it; only shown.
    pub reference: String,
    /// Where the image's server listens; 8080 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Run once for each call, with the input on standard input. Then there is no port.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdio: bool,
    /// In place of the configuration's `Cmd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    /// The parts of each layer, in the manifest's order.
    pub layers: Vec<Parts>,
}

/// Digests of a layer's parts, in order.
pub type Parts = Vec<Digest>;

/// One layer and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Of the layer as it is kept and sent.
    pub digest: Sha256,
    /// Of its tar.
    pub diff_id: Sha256,
    pub bytes: u64,
    pub parts: Parts,
}

/// How the image is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub arguments: Vec<String>,
    pub directory: String,
    pub env: BTreeMap<String, String>,
    /// As the configuration says it: names or numbers, or nothing.
    pub user: String,
    /// None: standard input and output.
    pub port: Option<u16>,
}

/// An image, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub reference: String,
    /// Of the manifest: names the image.
    pub digest: Sha256,
    /// `linux/amd64`.
    pub platform: String,
    pub layers: Vec<Layer>,
    pub entry: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Sha256,
    size: u64,
    #[serde(rename = "mediaType", default)]
    media_type: String,
}

#[derive(Deserialize)]
struct Config {
    architecture: String,
    os: String,
    #[serde(default)]
    config: Option<RunConfig>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Sha256>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// The architecture of this machine, as images name it.
pub fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The bundle of an image.
pub fn bundle_of(settings: &Settings, manifest: Bytes, config: Bytes) -> Result<Bundle, Rejection> {
    let settings = serde_json::to_vec(settings).expect("settings are plain data");
    let files = [
        (SETTINGS.to_owned(), Bytes::from(settings)),
        (MANIFEST.to_owned(), manifest),
        (CONFIG.to_owned(), config),
    ];
    Bundle::new(files, &BundleLimits::UPLOAD)
}

/// The parts that an image's bundle names; none where it is no image.
pub fn parts_of_bundle(tar: &[u8]) -> Vec<Digest> {
    let files = Bundle::read(tar, &BundleLimits::UPLOAD);
    let settings = files.ok().and_then(|bundle| {
        let settings = bundle.get(SETTINGS)?;
        serde_json::from_slice::<Settings>(settings).ok()
    });
    settings.map_or_else(Vec::new, |settings| settings.layers.into_iter().flatten().collect())
}

fn document<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, Rejection> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(too_large(format!(
            "the image's {name} has more than {DOCUMENT_BYTES_MAX} bytes"
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| bad(format!("the image's {name} is not valid: {error}")))
}

impl Description {
    /// The image of a bundle. Rejects with `image.bad`, `image.digest_mismatch`, `image.other_platform` and `image.too_large`.
    pub fn read(bundle: &Bundle) -> Result<Self, Rejection> {
        let file = |name: &str| {
            let missing = || bad(format!("the bundle of an image has no {name}"));
            bundle.get(name).ok_or_else(missing)
        };
        Self::of(file(SETTINGS)?, file(MANIFEST)?, file(CONFIG)?)
    }

    /// The image of these documents.
    pub fn of(settings: &[u8], manifest: &[u8], config: &[u8]) -> Result<Self, Rejection> {
        let settings: Settings = document("settings", settings)?;
        let digest = Sha256::of(manifest);
        let manifest: Manifest = document("manifest", manifest)?;
        if manifest.schema_version != 2 {
            return Err(bad("the image's manifest is not of version 2"));
        }
        if Sha256::of(config) != manifest.config.digest {
            return Err(mismatch("the image's configuration", manifest.config.digest));
        }
        let config: Config = document("configuration", config)?;
        let platform = platform(&config)?;
        let entry = entry(&settings, config.config.unwrap_or_default())?;
        if settings.reference.len() > REFERENCE_BYTES_MAX || settings.reference.contains(char::is_control) {
            return Err(bad("the image's reference is too long, or has control characters"));
        }
        Ok(Self {
            layers: layers(manifest.layers, config.rootfs.diff_ids, settings.layers)?,
            reference: settings.reference,
            digest,
            platform,
            entry,
        })
    }

    /// All parts of all layers.
    pub fn parts(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().flat_map(|layer| &layer.parts)
    }
}

pub(crate) fn mismatch(what: &str, digest: Sha256) -> Rejection {
    Rejection::new(
        Code::ImageDigestMismatch,
        format!("{what} does not have the digest {digest} by which it is named"),
    )
}

fn platform(config: &Config) -> Result<String, Rejection> {
    let platform = format!("{}/{}", config.os, config.architecture);
    let own = format!("linux/{}", own_architecture());
    match platform == own {
        true => Ok(platform),
        false => {
            let shown: String = platform.chars().take(80).collect();
            Err(other_platform(format!(
                "the image is for {shown}, and images here run on {own}"
            )))
        }
    }
}

pub(crate) fn other_platform(message: String) -> Rejection {
    Rejection::new(Code::ImageOtherPlatform, message).hint(format!(
        "build it for that platform, for example with `docker build --platform linux/{}`",
        own_architecture()
    ))
}

fn layers(layers: Vec<Descriptor>, diff_ids: Vec<Sha256>, parts: Vec<Parts>) -> Result<Vec<Layer>, Rejection> {
    if layers.len() > LAYERS_MAX {
        return Err(too_large(format!("an image has at most {LAYERS_MAX} layers")));
    }
    if layers.is_empty() {
        return Err(bad("the image has no layers"));
    }
    if layers.len() != diff_ids.len() {
        return Err(bad(
            "the image's manifest and configuration do not have the same number of layers",
        ));
    }
    if layers.len() != parts.len() {
        return Err(bad("the image's settings do not name the parts of each layer"));
    }
    let sum = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
    if sum.is_none_or(|sum| sum > IMAGE_BYTES_MAX) {
        return Err(too_large(format!(
            "the layers of an image have at most {} MiB",
            IMAGE_BYTES_MAX >> 20
        )));
    }
    let whole = |((layer, diff_id), parts): ((Descriptor, Sha256), Parts)| {
        if layer.media_type.ends_with("encrypted") || layer.media_type.contains("foreign") {
            return Err(bad("a layer is encrypted, or is not in the image but at an address"));
        }
        if parts.len() as u64 != layer.size.div_ceil(PART_BYTES) {
            return Err(bad(format!(
                "the parts of the layer {} do not fit its size",
                layer.digest
            )));
        }
        Ok(Layer {
            digest: layer.digest,
            diff_id,
            bytes: layer.size,
            parts,
        })
    };
    layers.into_iter().zip(diff_ids).zip(parts).map(whole).collect()
}

fn entry(settings: &Settings, config: RunConfig) -> Result<Entry, Rejection> {
    let mut arguments = config.entrypoint.unwrap_or_default();
    arguments.extend(settings.arguments.clone().or(config.cmd).unwrap_or_default());
    if arguments.first().is_none_or(String::is_empty) {
        return Err(bad("the image does not say what to start").hint("name the program: `-- PROGRAM ARGUMENTS`"));
    }
    let env = config.env.unwrap_or_default();
    check_texts(arguments.iter().chain(&env))?;
    let mut env: BTreeMap<String, String> = env
        .iter()
        .filter_map(|variable| variable.split_once('='))
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    env.entry("PATH".to_owned())
        .or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let port = match (settings.stdio, settings.port) {
        (true, Some(_)) => return Err(bad("an image with `stdio` has no port")),
        (_, Some(0)) => return Err(bad("the port of an image is 1 to 65535")),
        (true, None) => None,
        (false, port) => Some(port.unwrap_or(PORT_DEFAULT)),
    };
    if let Some(port) = port {
        env.insert("PORT".to_owned(), port.to_string());
    }
    let directory = config.working_dir.filter(|directory| !directory.is_empty());
    let directory = directory.unwrap_or_else(|| "/".to_owned());
    let user = config.user.unwrap_or_default();
    check_texts([&directory, &user])?;
    if !directory.starts_with('/') {
        return Err(bad("the image's working directory is not an absolute path"));
    }
    Ok(Entry {
        arguments,
        directory,
        env,
        user,
        port,
    })
}

fn check_texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<(), Rejection> {
    let (mut count, mut bytes) = (0, 0);
    for text in texts {
        (count, bytes) = (count + 1, bytes + text.len());
        if text.contains('\0') {
            return Err(bad("an argument or a variable of the image has a zero byte"));
        }
    }
    match count <= TEXTS_MAX && bytes <= TEXTS_BYTES_MAX {
        true => Ok(()),
        false => Err(too_large(
            "the image's arguments and variables have more than 64 KiB, or are more than 512",
        )),
    }
}
