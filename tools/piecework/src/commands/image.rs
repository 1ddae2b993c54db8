//! A container image as the source of a deployment: found, checked, and its layers uploaded.

use std::path::Path;

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;
use piecework_api::Client;
use piecework_image::{
    Description, Parts, Settings, bundle_of,
    source::{self, Blob, Fetched, Logins, Reference, Registry, SourceError},
};
use piecework_model::{Digest, Language};

use crate::{failure::Failure, places, show, source::Source};

/// Parts on their way at once.
const UPLOADS_AT_ONCE: usize = 4;

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Rejected(rejection) => rejection.into(),
            error @ SourceError::Io { .. } => anyhow::Error::new(error).into(),
        }
    }
}

/// What is at the path, or in a registry under the name. When it returns, the controller has all of its layers.
pub async fn source(client: &Client, image: &str, run: Settings, progress: &ProgressBar) -> Result<Source, Failure> {
    let path = Path::new(image).to_owned();
    let (fetched, name) = match path.exists() {
        true => {
            let name = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
            (aside(move || source::read(&path)).await??, name)
        }
        false => {
            let reference: Reference = image.parse()?;
            let name = reference.short_name().to_owned();
            let pulled = Registry::new(reference, &logins())?.pull(|said| progress.set_message(said.to_owned()));
            (pulled.await?, Some(name))
        }
    };
    progress.set_message("checking the layers");
    let (fetched, layers) = aside(move || {
        let layers = parts(&fetched);
        (fetched, layers)
    })
    .await?;
    let settings = fetched.settings(run, layers?);
    let bundle = bundle_of(&settings, fetched.manifest.clone(), fetched.config.clone())?;
    // What is wrong with it is told before anything is sent.
    let described = Description::read(&bundle)?;
    upload(client, &fetched, &settings.layers, progress).await?;
    let bytes: u64 = described.layers.iter().map(|layer| layer.bytes).sum();
    Ok(Source {
        name: name.and_then(|name| crate::source::name_of(Some(&name))),
        language: Language::Image,
        code: None,
        bundle: Some(BASE64_STANDARD.encode(&bundle.pack().tar)),
        handler: None,
        summary: format!("{} layers, {}", described.layers.len(), show::bytes(bytes)),
    })
}

fn logins() -> Logins {
    let file = places::registry_logins().and_then(|path| std::fs::read(path).ok());
    file.map_or_else(Logins::default, |json| Logins::parse(&json))
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.context("the image's layers were not read to their end")?)
}

fn parts(fetched: &Fetched) -> Result<Vec<Parts>, SourceError> {
    let digests = fetched.layer_digests()?;
    let layers = fetched.layers.iter().zip(digests);
    layers.map(|(blob, digest)| blob.parts(digest)).collect()
}

/// Sends what the controller has not got from this account.
async fn upload(client: &Client, fetched: &Fetched, layers: &[Parts], progress: &ProgressBar) -> Result<(), Failure> {
    let all: Vec<Digest> = layers.iter().flatten().copied().collect();
    let missing = client.missing_parts(all).await?.missing;
    let mut places: Vec<(Digest, &Blob, u64)> = Vec::with_capacity(missing.len());
    for (blob, parts) in fetched.layers.iter().zip(layers) {
        let places_of = (0u64..).zip(parts).map(|(place, part)| (*part, blob, place));
        places.extend(places_of.filter(|(part, ..)| missing.binary_search(part).is_ok()));
    }
    places.sort_unstable_by_key(|(part, ..)| *part);
    places.dedup_by_key(|(part, ..)| *part);
    let count = places.len();
    let sent = (1usize..).zip(places).map(|(number, (part, blob, place))| async move {
        progress.set_message(format!("uploading part {number} of {count}"));
        client.upload_part(part, blob.part(place)?).await?;
        Ok::<(), Failure>(())
    });
    stream::iter(sent)
        .buffer_unordered(UPLOADS_AT_ONCE)
        .try_collect::<()>()
        .await
}
