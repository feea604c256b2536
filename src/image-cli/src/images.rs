//! The commands that show and remove: `image ls|inspect|rm|prune`, and `tags` and `inspect`, which look into
//! a registry or a file without a pull.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::choose::choose;
use creel_image_lib::digest::Digest;
use creel_image_lib::manifest::{Document, parse};
use creel_image_lib::reference::Source;
use creel_image_lib::store::{Image, Named, Store};
use serde_json::{Value, json};

use crate::access::{self, End};
use crate::left_out::LeftOut;
use crate::origin::{self, Origin};
use crate::{cli, container, names, output, pull, setup, verify};

/// `creel image ...`
pub fn command(globals: &ArgMatches, words: &ArgMatches) -> Result<()> {
    let Some((name, words)) = words.subcommand() else { bail!("a command is missing") };
    let store = setup::store(globals)?;
    match name {
        "ls" => ls(&store, words),
        "inspect" => inspect(&store, words),
        "rm" => rm(&store, words),
        "verify" => verify::command(&store, words),
        _ => prune(&store, words),
    }
}

fn ls(store: &Store, words: &ArgMatches) -> Result<()> {
    let mut rows = Vec::new();
    let mut all = Vec::new();
    for named in store.names()? {
        // One whose layers a power loss has cut is shown too: it can be pulled again or removed.
        let image = store.image(&named.manifest)?;
        let size = image.as_ref().map_or("incomplete".to_owned(), |image| output::size(image.bytes));
        all.push(json!({"name": named.reference, "digest": named.manifest.as_str(), "pulled": named.pulled,
            "size": image.as_ref().map(|image| image.bytes), "layers": image.as_ref().map(|image| image.layers.len())}));
        rows.push([named.reference.clone(), named.manifest.short().to_owned(), size, age(named.pulled)]);
    }
    if cli::flag(words, "quiet") {
        let mut digests: Vec<&str> = all.iter().filter_map(|image| image["digest"].as_str()).collect();
        digests.sort_unstable();
        digests.dedup();
        return output::write(&digests.iter().map(|digest| format!("{digest}\n")).collect::<String>());
    }
    if cli::value::<String>(words, "format").as_deref() == Some("json") {
        return output::write(&format!("{}\n", Value::from(all)));
    }
    output::write(&output::table(["NAME", "DIGEST", "SIZE", "PULLED"], &rows))
}

fn age(pulled: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seconds = now.saturating_sub(pulled);
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// What a user may mean by the name of an image of the store: its name, or the start of its digest.
pub fn find(store: &Store, text: &str) -> Result<Vec<Named>> {
    for source in names::candidates(text).unwrap_or_default() {
        if let Some(named) = store.named(&origin::name(&source))? {
            return Ok(vec![named]);
        }
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_digest = hex.len() >= 4 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let names = if is_digest { store.names()? } else { Vec::new() };
    let found: Vec<Named> = names.into_iter().filter(|named| named.manifest.hex().starts_with(hex)).collect();
    let other = |named: &Named| named.manifest != found[0].manifest;
    if found.is_empty() {
        bail!("{text}: no such image in the store; \"creel image ls\" shows what there is");
    }
    if found.iter().any(other) {
        bail!("{text}: several images begin with this digest; write more of it");
    }
    Ok(found)
}

fn inspect(store: &Store, words: &ArgMatches) -> Result<()> {
    let text = cli::value::<String>(words, "name").unwrap_or_default();
    let found = find(store, &text)?;
    let Some(image) = store.image(&found[0].manifest)? else {
        bail!("{text}: incomplete after a power loss; pull it again");
    };
    let names: Vec<&str> = found.iter().map(|named| named.reference.as_str()).collect();
    let document = json!({
        "names": names,
        "digest": image.manifest.as_str(),
        "target": found[0].target.as_str(),
        "pulled": found[0].pulled,
        "size": image.bytes,
        "layers": image.layers,
        "leftOut": LeftOut::of(store, &image)?.json(),
        "manifest": blob(store, &image, &image.manifest)?,
        "config": blob(store, &image, &image.config)?,
    });
    output::write(&format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn blob(store: &Store, image: &Image, digest: &Digest) -> Result<Value> {
    let bytes = store.small_blob(digest)?.with_context(|| format!("{}: {digest} is gone", image.manifest))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn rm(store: &Store, words: &ArgMatches) -> Result<()> {
    let mut text = String::new();
    for name in cli::values(words, "name") {
        for named in find(store, &name)? {
            store.remove_name(&named.reference)?;
            text.push_str(&format!("{}\n", named.reference));
        }
    }
    output::write(&text)
}

fn prune(store: &Store, words: &ArgMatches) -> Result<()> {
    if cli::flag(words, "kept") {
        for id in container::prune(store)? {
            output::write(&format!("removed what the container {id} wrote\n"))?;
        }
    }
    let pruned = store.prune()?;
    output::write(&format!(
        "removed {} images, {} layers, {} documents and blobs\n",
        pruned.images, pruned.directories, pruned.blobs
    ))
}

/// `creel tags`
pub fn tags(words: &ArgMatches) -> Result<()> {
    let text = cli::value::<String>(words, "image").unwrap_or_default();
    let Source::Registry(reference) = names::parse(&text)? else {
        bail!("{text}: only repositories of registries have tags");
    };
    let tags = access::client(words, End::Source)?.repository(&reference)?.tags()?;
    output::write(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())
}

/// `creel inspect`
pub fn inspect_source(_globals: &ArgMatches, words: &ArgMatches) -> Result<()> {
    let text = cli::value::<String>(words, "image").unwrap_or_default();
    let source = names::resolve(&text, words)?;
    // Only an archive that is compressed or piped is written there, to a file without a name.
    let name = origin::name(&source);
    let origin = Origin::open(&source, words, &std::env::temp_dir()).with_context(|| name.clone())?;
    let target = origin.target().with_context(|| name.clone())?;
    if cli::flag(words, "raw") {
        return output::write_document(
            std::str::from_utf8(&target.bytes).context("the manifest is not UTF-8")?,
        );
    }
    let platforms = match parse(&target.bytes, target.media_type.as_deref())? {
        Document::Manifest(_) => Vec::new(),
        Document::Index(index) => {
            let images = index.manifests.iter().filter(|entry| !entry.is_attestation());
            images.filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect()
        }
    };
    let digest = target.digest.clone();
    let mut fetch = |entry: &_| origin.manifest(entry).map_err(|error| format!("{error:#}"));
    let wanted = pull::platform(words)?;
    let chosen = choose(target.bytes, target.media_type.as_deref(), &wanted, &mut fetch)
        .with_context(|| name.clone())?;
    let config = origin.config(&chosen.manifest.config).with_context(|| name.clone())?;
    if cli::flag(words, "config") {
        return output::write_document(
            std::str::from_utf8(&config).context("the configuration is not UTF-8")?,
        );
    }
    let size: u64 = chosen.manifest.layers.iter().map(|layer| layer.size).sum();
    let document = json!({
        "name": name,
        "digest": digest.as_str(),
        "platforms": platforms,
        "manifest": serde_json::from_slice::<Value>(&chosen.bytes)?,
        "manifestDigest": chosen.digest.as_str(),
        "compressedSize": size,
        "config": serde_json::from_slice::<Value>(&config)?,
    });
    output::write(&format!("{}\n", serde_json::to_string_pretty(&document)?))
}
