//! Bringing an image in: manifest, configuration, layers, record.
//!
//! A pull is a task of its own, which ends when nobody waits for it any more. What it is about to use is leased on disk
//! first, so that layers already there stay, and layers finished before its end, or a crash, serve the next try.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::stream::{FuturesUnordered, StreamExt};
use oci_spec::image::ImageConfiguration;
use tokio::sync::mpsc;

use crate::auth::Auth;
use crate::digest::Digest;
use crate::error::PullError;
use crate::hosts::RegistryConfig;
use crate::import::Layout;
use crate::reference::{Reference, Wanted};
use crate::registry::{Descriptor, Document, MANIFEST_LIMIT, Patience, Session, choose};
use crate::store::{Image, ImageRecord, LayerKey, LayerRecord, Stage, Store, VERSION};
use crate::unpack::{self, Expected, Report};

mod commit;

/// A configuration may be as large as a manifest.
const CONFIG_LIMIT: u64 = MANIFEST_LIMIT;
/// Indexes in indexes, at most.
const DEPTH: usize = 3;
/// Chunks between the network and the unpacker: what one may be ahead of the other.
const CHUNKS: usize = 16;

/// Where an image comes from.
#[derive(Debug)]
enum Content {
    Registry(Session),
    Layout(Layout),
}

/// An image's documents, checked.
struct Documents {
    /// What the name pointed to: an index's digest where there is one.
    named: Digest,
    manifest: Digest,
    config_digest: Digest,
    config_text: String,
    layers: Vec<Layer>,
}

/// One layer of an image.
#[derive(Clone)]
struct Layer {
    descriptor: Descriptor,
    diff_id: Digest,
    /// Digest of this layer upon those below it.
    chain: Digest,
}

/// A task that ends with whoever waits for it.
struct Abort<T>(tokio::task::JoinHandle<Result<T, PullError>>);

impl<T> Abort<T> {
    async fn outcome(mut self) -> Result<T, PullError> {
        (&mut self.0).await.map_err(|error| PullError::Store(error.to_string()))?
    }
}

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What became of a layer.
enum Ready {
    Present(LayerKey),
    /// Applied, but some of its folders are still to be taken from the layers below.
    Waiting(Stage, Report),
}

impl Store {
    /// Pulls `name` from its registry. Several pulls of one image, and of images that share layers, download each layer
    /// once. When the future is dropped, the pull ends and clears away what it has not finished.
    ///
    /// # Errors
    /// [`PullError`]; nothing of the image is then visible.
    pub async fn pull(&self, name: &str, auth: Option<Auth>, registries: &RegistryConfig) -> Result<Image, PullError> {
        let (store, registries) = (self.clone(), registries.clone());
        let reference = Reference::parse(name)?;
        let pull = async move {
            let endpoints = {
                let registry = reference.registry.clone();
                blocking(move || registries.endpoints(&registry)).await?
            };
            let options = &store.inner.options;
            let patience = Patience { stall: options.stall, attempts: options.attempts };
            let session = {
                let reference = reference.clone();
                blocking(move || Session::new(&reference, endpoints, auth.as_ref(), patience)).await?
            };
            store.bring(&reference, Arc::new(Content::Registry(session)), false).await
        };
        // A task for itself is as good as a future in all but a panic, which must not be the caller's.
        Abort(tokio::spawn(pull)).outcome().await
    }

    /// Brings in the image of a layout under `name`, which must have a tag. An image that is already there is only named.
    ///
    /// # Errors
    /// [`PullError`], as for [`Store::pull`].
    pub async fn import_layout(&self, name: &str, layout: Layout, pinned: bool) -> Result<Image, PullError> {
        let store = self.clone();
        let reference = Reference::parse(name)?;
        let import = async move { store.bring(&reference, Arc::new(Content::Layout(layout)), pinned).await };
        tokio::spawn(import).await.map_err(|error| PullError::Store(error.to_string()))?
    }

    async fn bring(&self, reference: &Reference, content: Arc<Content>, pinned: bool) -> Result<Image, PullError> {
        let documents = content.documents(reference).await?;
        // Pulls of the same image wait here: the first brings the layers, the others find them.
        let _turn = self.inner.pulls.turn(documents.manifest.as_str()).await;
        let diff_ids = documents.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let lease = commit::Lease::take(self, documents.manifest.hex(), diff_ids).await?;
        let keys = self.layers(&content, &documents.layers).await?;
        let record = ImageRecord {
            version: VERSION,
            id: documents.config_digest,
            tags: match &reference.wanted {
                Wanted::Tag(_) => BTreeMap::from([(reference.to_string(), 0)]),
                Wanted::Digest(_) => BTreeMap::new(),
            },
            digests: [format!("{}@{}", reference.name(), documents.named)].into(),
            layers: keys,
            pinned,
            config: documents.config_text,
        };
        let store = self.clone();
        blocking(move || store.commit_image(record).map_err(PullError::from).map(|image| (image, lease.done())))
            .await
            .map(|(image, ())| image)
    }

    /// Makes all layers present, bottom first, and returns their keys.
    async fn layers(&self, content: &Arc<Content>, layers: &[Layer]) -> Result<Vec<LayerKey>, PullError> {
        let mut running: FuturesUnordered<_> = layers
            .iter()
            .enumerate()
            .map(|(place, layer)| async move { (place, self.layer(content, layer).await) })
            .collect();
        let mut ready: Vec<Option<Ready>> = layers.iter().map(|_| None).collect();
        while let Some((place, outcome)) = running.next().await {
            // The first failure ends the pull; what runs beside it is dropped and cleans up after itself.
            ready[place] = Some(outcome?);
        }
        drop(running);
        let mut keys = Vec::with_capacity(layers.len());
        for (layer, ready) in layers.iter().zip(ready) {
            let key = match ready {
                Some(Ready::Present(key)) => key,
                Some(Ready::Waiting(stage, report)) => {
                    let key = LayerKey::Above(layer.chain.clone());
                    self.commit_layer(stage, report, key.clone(), layer, keys.clone()).await?;
                    key
                }
                None => return Err(PullError::Store(format!("{} was not brought in", layer.diff_id))),
            };
            keys.push(key);
        }
        Ok(keys)
    }

    async fn layer(&self, content: &Arc<Content>, layer: &Layer) -> Result<Ready, PullError> {
        let present = || self.index().present(&layer.diff_id, &layer.chain).map(Ready::Present);
        let _turn = self.inner.layers.turn(layer.diff_id.as_str()).await;
        if let Some(present) = present() {
            return Ok(present);
        }
        let _download = self.inner.downloads.acquire().await.map_err(|error| PullError::Store(error.to_string()))?;
        let store = self.clone();
        let stage = blocking(move || Stage::new(&store).map_err(PullError::from)).await?;
        let (stage, report) = self.apply(content, layer, stage).await?;
        if !report.implied.is_empty() {
            return Ok(Ready::Waiting(stage, report));
        }
        let key = LayerKey::Alone(layer.diff_id.clone());
        self.commit_layer(stage, report, key.clone(), layer, Vec::new()).await?;
        Ok(Ready::Present(key))
    }

    /// Streams one layer from its source into its folder.
    async fn apply(&self, content: &Arc<Content>, layer: &Layer, stage: Stage) -> Result<(Stage, Report), PullError> {
        let (to, from) = mpsc::channel(CHUNKS);
        let expected = Expected {
            blob: layer.descriptor.digest.clone(),
            size: layer.descriptor.size,
            diff_id: layer.diff_id.clone(),
        };
        let options = self.inner.options.clone();
        let unpack = tokio::task::spawn_blocking(move || {
            let target = stage.diff();
            let input = Chunks { from, current: Bytes::new(), failed: None };
            let report = unpack::unpack(&options.unpack, &options.limits, &expected, &target, input)?;
            Ok::<_, PullError>((stage, report))
        });
        let download = async {
            let streamed = match content.as_ref() {
                Content::Registry(session) => session.stream(&layer.descriptor, &to).await,
                Content::Layout(layout) => layout.stream(&layer.descriptor, &to).await,
            };
            if let Err(error) = streamed {
                // The unpacker reports it; it may have gone already with an error of its own.
                let _ = to.send(Err(error)).await;
            }
            drop(to);
        };
        let (unpacked, ()) = tokio::join!(unpack, download);
        unpacked.map_err(|error| PullError::Store(error.to_string()))?
    }

    /// Finishes a layer with what the layers below it know, and makes it part of the store.
    async fn commit_layer(
        &self,
        stage: Stage,
        report: Report,
        key: LayerKey,
        layer: &Layer,
        below: Vec<LayerKey>,
    ) -> Result<(), PullError> {
        let store = self.clone();
        let record = LayerRecord {
            version: VERSION,
            key,
            diff_id: layer.diff_id.clone(),
            blob: layer.descriptor.digest.clone(),
            bytes: report.bytes,
            inodes: report.inodes,
        };
        let commit = move || {
            let lower = store.open_layers(&below)?;
            let target = stage.diff();
            unpack::finish(&target, &report, &lower).map_err(|error| PullError::from_io("layer", &target, &error))?;
            if report.skipped_attributes > 0 {
                let count = report.skipped_attributes;
                tracing::debug!(layer = %record.diff_id, count, "extended attributes not applied");
            }
            stage.commit(&store, record).map_err(PullError::from)
        };
        blocking(commit).await
    }
}

impl Content {
    /// Follows a name to the documents of the image for this machine.
    async fn documents(&self, reference: &Reference) -> Result<Documents, PullError> {
        let what = reference.to_string();
        let refuse = |reason: String| PullError::BadManifest { what: what.clone(), reason };
        let (mut digest, mut document) = match self {
            Self::Registry(session) => session.resolve().await?,
            Self::Layout(layout) => {
                let index = layout.index()?;
                let Document::Index(entries) = &index else { return Err(refuse("index.json is no index".into())) };
                let entry = choose(entries).map_err(&refuse)?;
                (entry.digest.clone(), Document::parse(&layout.blob(entry, MANIFEST_LIMIT)?, None, &what)?)
            }
        };
        let named = digest.clone();
        for _ in 0..DEPTH {
            let (config, layers) = match document {
                Document::Manifest { config, layers } => (config, layers),
                Document::Index(entries) => {
                    let entry =
                        choose(&entries).map_err(|detail| PullError::NotFound { what: what.clone(), detail })?;
                    digest = entry.digest.clone();
                    document = match self {
                        Self::Registry(session) => session.manifest(&digest).await?,
                        Self::Layout(layout) => Document::parse(&layout.blob(entry, MANIFEST_LIMIT)?, None, &what)?,
                    };
                    continue;
                }
            };
            let bytes = match self {
                Self::Registry(session) => session.blob(&config, CONFIG_LIMIT).await?,
                Self::Layout(layout) => layout.blob(&config, CONFIG_LIMIT)?,
            };
            let text = String::from_utf8(bytes.to_vec()).map_err(|_| refuse("its configuration is no text".into()))?;
            let layers = pair(&text, layers).map_err(refuse)?;
            return Ok(Documents { named, manifest: digest, config_digest: config.digest, config_text: text, layers });
        }
        Err(refuse(format!("indexes in indexes, more than {DEPTH} deep")))
    }
}

/// The layers with the digests that the configuration gives for their contents.
fn pair(config: &str, descriptors: Vec<Descriptor>) -> Result<Vec<Layer>, String> {
    let config: ImageConfiguration =
        serde_json::from_str(config).map_err(|error| format!("its configuration: {error}"))?;
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != descriptors.len() {
        return Err(format!("{} layers, but {} in its configuration", descriptors.len(), diff_ids.len()));
    }
    let mut chain: Option<Digest> = None;
    let mut layers = Vec::with_capacity(descriptors.len());
    for (descriptor, diff_id) in descriptors.into_iter().zip(diff_ids) {
        let diff_id: Digest = diff_id.parse().map_err(|error| format!("its configuration: {error}"))?;
        // https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid
        let link = match &chain {
            None => diff_id.clone(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain = Some(link.clone());
        layers.push(Layer { descriptor, diff_id, chain: link });
    }
    Ok(layers)
}

/// The blocking end of a download.
struct Chunks {
    from: mpsc::Receiver<Result<Bytes, PullError>>,
    current: Bytes,
    /// Why it broke off; said again to whoever reads on.
    failed: Option<PullError>,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if let Some(error) = &self.failed {
                return Err(io::Error::other(error.clone()));
            }
            match self.from.blocking_recv() {
                None => return Ok(0),
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(error)) => self.failed = Some(error),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| PullError::Store(error.to_string()))?
}
