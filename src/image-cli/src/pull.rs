//! `pull`: from a name to an image whose layers are all in the store.
//!
//! The manifest and the configuration come first; then layers, several at a time, each as one stream from
//! the source into its snapshot, and only what the store does not have. The name is written last: a kill at
//! any moment leaves whole layers for the next pull and no image that misses one.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Error, Result, anyhow, bail};
use clap::ArgMatches;
use creel_image_lib::choose::choose;
use creel_image_lib::config::ImageConfig;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::{Digest, Verified};
use creel_image_lib::mount;
use creel_image_lib::platform::Platform;
use creel_image_lib::reference::Source;
use creel_image_lib::store::{self, Blob, Image, Layer, Partial, Slot, Store};
use creel_image_lib::unpack::Limits;

use crate::left_out::LeftOut;
use crate::origin::{self, Origin, Target};
use crate::progress::{LayerProgress, PULL, Progress};
use crate::{cli, names, output, setup, workers};

/// Layers that are fetched and unpacked at once. Each has two threads and about 2 MB of buffers.
const AT_ONCE: usize = 4;

/// Layers of at least this many bytes are written as they come, so that a pull that breaks off, or is killed,
/// is gone on with (docs/design/0015). Below it, fetching again costs less than writing all that ever comes.
const RESUME_FROM: u64 = 64 << 20;

/// When the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// When the store does not have the image.
    Missing,
    /// Always; layers that are there are not fetched again.
    Always,
    /// Never.
    Never,
    /// When the registry has another image by that name, or the store has none.
    Newer,
}

/// What to pull.
pub struct Wanted<'a> {
    /// What was written.
    text: String,
    /// From where; only a name without a registry may mean several places.
    sources: Vec<Source>,
    /// For which machine.
    pub platform: Platform,
    /// When to ask.
    pub policy: Policy,
    /// The command line, for what it says of registries.
    pub words: &'a ArgMatches,
}

impl<'a> Wanted<'a> {
    /// Reads the command line.
    pub fn new(words: &'a ArgMatches, policy: Policy) -> Result<Self> {
        let text = cli::value::<String>(words, "image").unwrap_or_default();
        let sources = names::candidates(&text)?;
        names::check_login(&sources, &text, words)?;
        if sources.contains(&Source::Stdin) && cli::flag(words, "interactive") {
            bail!("-i: standard input is the image's archive, and nothing is left of it for the container");
        }
        Ok(Wanted { text, sources, platform: platform(words)?, policy, words })
    }

    /// The place that is meant: one that the store has an image of, where it may serve, or the first that
    /// answers.
    fn source(&self, store: &Store) -> Result<Source> {
        if self.policy != Policy::Always && self.sources.len() > 1 {
            for source in &self.sources {
                if store.named(&origin::name(source))?.is_some() {
                    return Ok(source.clone());
                }
            }
        }
        names::first_there(self.sources.clone(), &self.text, self.words)
    }
}

/// `--platform`, or this machine.
pub fn platform(words: &ArgMatches) -> Result<Platform> {
    let named = cli::value::<String>(words, "platform");
    Ok(named.map(|text| text.parse()).transpose()?.unwrap_or_else(Platform::host))
}

/// `creel pull`
pub fn command(globals: &ArgMatches, words: &ArgMatches) -> Result<()> {
    let wanted = Wanted::new(words, Policy::Always)?;
    let store = setup::store(globals)?;
    let image = pull(&store, &wanted)?;
    store::seal(&store.unsealed(&image)).map_err(full_disk)?;
    if let Some(path) = cli::value::<std::path::PathBuf>(words, "digestfile") {
        let text = image.manifest.to_string();
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    output::write(&format!("{}\n", image.manifest))
}

/// Gives the image, from the store or from its source.
pub fn pull(store: &Store, wanted: &Wanted<'_>) -> Result<Image> {
    let source = wanted.source(store)?;
    let name = origin::name(&source);
    pull_named(store, wanted, &source, &name).with_context(|| name.clone())
}

fn pull_named(store: &Store, wanted: &Wanted<'_>, source: &Source, name: &str) -> Result<Image> {
    let known = in_store(store, name, &wanted.platform)?;
    let remote = matches!(source, Source::Registry(_));
    match (known, wanted.policy) {
        (Some((image, _)), Policy::Never) => Ok(image),
        (None, Policy::Never) => bail!("not in the store, and --pull never forbids to ask for it"),
        // Files are as near as the store: what they say now counts.
        (Some((image, _)), Policy::Missing) if remote => Ok(image),
        (Some((image, target)), Policy::Newer) if remote => {
            newer(store, wanted, (source, name), image, &target)
        }
        _ => {
            fetch(store, wanted, name, &Origin::open_to_use(source, wanted.words, &store.root().join("tmp"))?)
        }
    }
}

/// Asks whether the name means something else by now. Without an answer the store's image serves.
fn newer(
    store: &Store,
    wanted: &Wanted<'_>,
    (source, name): (&Source, &str),
    image: Image,
    target: &Digest,
) -> Result<Image> {
    let origin = Origin::open_to_use(source, wanted.words, &store.root().join("tmp"))?;
    let Origin::Registry(repository, reference) = &origin else { return Ok(image) };
    match repository.manifest_head(reference.manifest_name()) {
        Ok(Some(head)) if head.digest.as_ref() == Some(target) => Ok(image),
        Ok(_) => fetch(store, wanted, name, &origin),
        Err(error) => {
            output::warning(&format!("{name}: {error}; the image of the store is used"));
            Ok(image)
        }
    }
}

/// The image by this name, if it is whole and for this platform, and what the name led to.
fn in_store(store: &Store, name: &str, platform: &Platform) -> Result<Option<(Image, Digest)>> {
    let Some(named) = store.named(name)? else { return Ok(None) };
    let Some(image) = store.image(&named.manifest)? else { return Ok(None) };
    let suits = suits(&store.config(&image)?, platform);
    Ok(suits.then_some((image, named.target)))
}

/// Whether the machine that is meant runs the image. Old images do not say what they are for.
fn suits(config: &ImageConfig, platform: &Platform) -> bool {
    let own = config.platform();
    let silent = own.os.is_empty() && own.architecture.is_empty();
    silent || platform.runs().iter().any(|runs| *runs == with_only_names(&own))
}

/// Refuses an image for another machine.
pub fn check_suits(config: &ImageConfig, platform: &Platform) -> Result<()> {
    if suits(config, platform) {
        return Ok(());
    }
    bail!("the image is for {}, wanted is {platform}; name the other with --platform", config.platform())
}

/// What is compared: versions and features of Windows are not.
fn with_only_names(platform: &Platform) -> Platform {
    Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref())
}

fn fetch(store: &Store, wanted: &Wanted<'_>, name: &str, origin: &Origin) -> Result<Image> {
    let progress = Progress::new(wanted.words, PULL, name);
    if matches!(origin, Origin::Registry(..)) {
        progress.begin();
    }
    let Target { bytes, media_type, digest: target } = origin.target()?;
    let mut manifest = |entry: &Descriptor| -> Result<Vec<u8>, String> {
        let digest = entry.digest().map_err(|error| error.to_string())?;
        match store.small_blob(&digest) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) | Err(_) => origin.manifest(entry).map_err(|error| format!("{error:#}")),
        }
    };
    let chosen = choose(bytes, media_type.as_deref(), &wanted.platform, &mut manifest)?;
    let blob = blobs(wanted.words);
    let image = match store.image(&chosen.digest)? {
        Some(image) => {
            if blob == Blob::Keep {
                layers(store, origin, &chosen.manifest.layers, &image.layers, &progress, blob)?;
            }
            image
        }
        None => {
            chosen.manifest.check_image()?;
            let digest = chosen.manifest.config.digest()?;
            let config = match (chosen.manifest.config.inline(), store.small_blob(&digest)?) {
                (Some(bytes), _) | (None, Some(bytes)) => bytes,
                (None, None) => origin.config(&chosen.manifest.config).context("configuration")?,
            };
            let parsed = ImageConfig::parse(&config)?;
            check_suits(&parsed, &wanted.platform)?;
            mount::check_layers(&parsed.rootfs.diff_ids)?;
            layers(store, origin, &chosen.manifest.layers, &parsed.rootfs.diff_ids, &progress, blob)?;
            let image = store.add_image(&chosen.digest, &chosen.bytes, &config).map_err(full_disk)?;
            LeftOut::of(store, &image)?.warn(name);
            image
        }
    };
    let said =
        store.named(name)?.is_some_and(|named| named.manifest == image.manifest && named.target == target);
    // A pull counts as one even when it brought nothing new; a run that only looked does not.
    if !said || wanted.policy == Policy::Always {
        store.name_image(name, &image, &target)?;
    }
    progress.finish(&image.manifest, image.bytes, image.layers.len());
    Ok(image)
}

fn blobs(words: &ArgMatches) -> Blob {
    if cli::flag(words, "store-blobs") { Blob::Keep } else { Blob::Stream }
}

/// A layer that is to be looked for.
struct Job<'a> {
    descriptor: &'a Descriptor,
    diff_id: &'a Digest,
    progress: LayerProgress,
    blob: Blob,
}

/// Puts the layers into the store, several at once. The first error ends the others.
fn layers(
    store: &Store,
    origin: &Origin,
    descriptors: &[Descriptor],
    diff_ids: &[Digest],
    progress: &Progress,
    blob: Blob,
) -> Result<()> {
    if descriptors.len() != diff_ids.len() {
        bail!(
            "the manifest has {} layers, the image's configuration names {}",
            descriptors.len(),
            diff_ids.len()
        );
    }
    let mut wanted = Vec::new();
    let mut seen = HashSet::new();
    for (descriptor, diff_id) in descriptors.iter().zip(diff_ids) {
        let is_there = store.snapshot(diff_id)?.is_some()
            && (blob == Blob::Stream || store.check_blob(&descriptor.digest()?)? == Some(true));
        if seen.insert(diff_id) && !is_there {
            wanted.push((descriptor, diff_id));
        }
    }
    // Compressed layers are smaller than what is in them: where not even they have room, nothing is begun.
    let size = wanted.iter().map(|(descriptor, _)| descriptor.size).sum();
    setup::check_room(store.root(), size, "free some space, \"creel image prune\" removes unused images")?;
    progress.during(|| {
        let job =
            |(descriptor, diff_id)| Job { descriptor, diff_id, progress: progress.layer(descriptor), blob };
        workers::each(wanted.into_iter().map(job), AT_ONCE, |job, stop| layer(store, origin, &job, stop))
    })
}

fn layer(store: &Store, origin: &Origin, job: &Job<'_>, stop: &AtomicBool) -> Result<()> {
    let digest = job.descriptor.digest()?;
    let resumes = matches!(origin, Origin::Registry(..))
        && (job.blob == Blob::Keep || job.descriptor.size >= RESUME_FROM);
    let mut partial =
        if resumes { store.partial(&digest, job.descriptor.size).map_err(full_disk)? } else { None };
    let had = partial.as_ref().map_or(0, Partial::have);
    let tried = attempt(store, origin, job, stop, partial.as_mut());
    let Some(partial) = partial else { return tried };
    match tried {
        Ok(()) if job.blob == Blob::Keep => Ok(partial.keep(store, &digest)?),
        Ok(()) => Ok(partial.discard()?),
        // What has come is right as far as anyone knows: the next pull goes on from there.
        Err(error) if partial.broke() => Err(error),
        Err(error) => {
            let full = partial.is_full();
            partial.discard()?;
            // The start was another run's, and may have been cut by a power loss.
            if had == 0 || full { Err(error) } else { layer(store, origin, job, stop) }
        }
    }
}

/// Fetches a layer once: into its snapshot, or only its blob where the snapshot is there.
fn attempt(
    store: &Store,
    origin: &Origin,
    job: &Job<'_>,
    stop: &AtomicBool,
    mut partial: Option<&mut Partial>,
) -> Result<()> {
    let slot = match store.layer(job.diff_id)? {
        Layer::Ready(_) if job.blob == Blob::Stream => {
            job.progress.done();
            return Ok(());
        }
        Layer::Ready(_) => None,
        Layer::Missing(slot) => Some(slot),
    };
    let digest = job.descriptor.digest()?;
    let offset = partial.as_ref().map_or(0, |partial| partial.have());
    let opened = origin.layer_from(job.descriptor, offset);
    if let (Err(error), Some(partial)) = (&opened, &mut partial)
        && !error.downcast_ref::<creel_registry::Error>().is_some_and(creel_registry::Error::is_final)
    {
        partial.source_failed();
    }
    let source = opened.with_context(|| format!("layer {}", digest.short()))?;
    let source = job.progress.reader(Watched { inner: source, stop });
    if offset > 0 {
        job.progress.had(offset);
    }
    // One that is written on its way is not written twice.
    match partial {
        Some(partial) => put(store, slot, partial.reader(source)?, job, Blob::Stream)?,
        None => put(store, slot, source, job, job.blob)?,
    }
    job.progress.done();
    Ok(())
}

fn put(
    store: &Store,
    slot: Option<Slot<'_>>,
    mut source: impl Read + Send,
    job: &Job<'_>,
    blob: Blob,
) -> Result<()> {
    let (digest, size) = (job.descriptor.digest()?, job.descriptor.size);
    match slot {
        Some(slot) => {
            slot.unpack(source, &digest, size, &Limits::default(), blob).map_err(full_disk)?;
        }
        None if blob == Blob::Keep => store.put_blob(&digest, size, source).map_err(full_disk)?,
        // Read for its digest; what is read is written by the source itself.
        None => {
            let copied = io::copy(&mut Verified::new(&mut source, digest.clone(), size), &mut io::sink());
            copied.map_err(|error| full_disk(store::Error::Layer { digest, why: error.into() }))?;
        }
    }
    Ok(())
}

/// Says what to do about a full disk.
fn full_disk(error: store::Error) -> Error {
    let full = error.is_full();
    let error = Error::from(error);
    if full {
        anyhow!("{error:#}; free some space, \"creel image prune\" removes unused images")
    } else {
        error
    }
}

/// Ends when another layer has failed.
struct Watched<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("given up, since another layer failed"));
        }
        self.inner.read(buffer)
    }
}
