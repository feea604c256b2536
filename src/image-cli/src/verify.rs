//! `image verify`: whether the store still has what was pulled, and how to have it again.

use std::collections::HashSet;
use std::io::Read;

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::Digest;
use creel_image_lib::manifest::{Document, parse};
use creel_image_lib::reference::Source;
use creel_image_lib::store::{Checked, Image, Named, Repair, Store};

use crate::progress::{Progress, VERIFY};
use crate::stored::{LoginFor, Stored};
use crate::{access, cli, images, output};

/// What was found of one image.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    /// Something is wrong and stays so.
    wrong: bool,
    repaired: bool,
    /// Layers that nothing could be compared with.
    unknown: usize,
}

impl Report {
    fn wrong(&mut self, what: String) {
        self.lines.push(what);
        self.wrong = true;
    }

    /// Tells what was found of a part.
    fn take(&mut self, checked: Checked, part: &str) {
        let (found, container) = match checked {
            Checked::Same => return,
            Checked::Differs(found) => {
                self.wrong = true;
                (found, None)
            }
            Checked::Repaired(found) => {
                self.repaired = true;
                (found, None)
            }
            Checked::InUse(found, container) => (found, Some(container)),
        };
        self.lines.extend(found.into_iter().map(|what| format!("{part}: {what}")));
        if let Some(container) = container {
            self.wrong(format!(
                "{part}: not replaced, since the container {container} runs on it; delete that first"
            ));
        }
    }
}

/// `creel image verify`
pub fn command(store: &Store, words: &ArgMatches) -> Result<()> {
    let names = cli::values(words, "name");
    let mut wanted: Vec<Named> = Vec::new();
    for name in &names {
        wanted.extend(images::find(store, name)?);
    }
    if names.is_empty() {
        wanted = store.names()?;
    }
    check_login(&wanted, words)?;
    let mut seen = HashSet::new();
    let (mut wrong, mut unknown) = (0, 0);
    for named in wanted {
        if !seen.insert(named.manifest.clone()) {
            continue;
        }
        let progress = Progress::new(words, VERIFY, &named.reference);
        let report = progress.during(|| image(store, words, &named, &progress))?;
        let state = match (&report.wrong, report.repaired, report.unknown) {
            (true, ..) => "damaged",
            (false, true, _) => "repaired",
            (false, false, 0) => "whole",
            (false, false, _) => "not compared",
        };
        let mut text = format!("{}: {state}\n", named.reference);
        for line in &report.lines {
            text.push_str(&format!("  {}\n", output::word(line)));
        }
        output::write(&text)?;
        wrong += usize::from(report.wrong);
        unknown += report.unknown;
    }
    if wrong > 0 {
        let hint = if cli::flag(words, "repair") {
            "what --repair could not mend, \"creel image rm\", \"creel image prune\" and another pull do"
        } else {
            "\"creel image verify --repair\" fetches what is damaged again"
        };
        bail!("{wrong} of {} images are damaged; {hint}", seen.len());
    }
    if unknown > 0 && !cli::flag(words, "offline") {
        bail!(
            "{unknown} layers could not be compared with anything; pull with --store-blobs to have what to compare them with"
        );
    }
    Ok(())
}

/// Refuses a credential that several registries would get.
fn check_login(wanted: &[Named], words: &ArgMatches) -> Result<()> {
    let Some(flag) = access::login_flag(words) else { return Ok(()) };
    let mut hosts: Vec<String> = wanted.iter().filter_map(|named| registry(&named.reference)).collect();
    hosts.sort();
    hosts.dedup();
    match hosts.as_slice() {
        [_] => Ok(()),
        [] => bail!("--{flag}: no image of these is from a registry"),
        several => {
            bail!("--{flag}: the images are from {}; name those of one registry", several.join(" and "))
        }
    }
}

fn registry(name: &str) -> Option<String> {
    match name.parse() {
        Ok(Source::Registry(reference)) => Some(reference.registry().to_owned()),
        Ok(_) | Err(_) => None,
    }
}

fn image(store: &Store, words: &ArgMatches, named: &Named, progress: &Progress) -> Result<Report> {
    let mut report = Report::default();
    let repair = repair(words);
    let Some(bytes) = store.small_blob(&named.manifest)? else {
        report.wrong(format!("manifest {}: gone or altered; pull it again", named.manifest.short()));
        return Ok(report);
    };
    let Some(image) = store.recorded(&named.manifest)? else {
        report.wrong("incomplete after a power loss; pull it again".into());
        return Ok(report);
    };
    if store.small_blob(&image.config)?.is_none() {
        report.wrong(format!("configuration {}: gone or altered; pull it again", image.config.short()));
    }
    let Document::Manifest(manifest) = parse(&bytes, None)? else {
        bail!("{}: not a manifest", named.manifest)
    };
    let stored = Stored::new(store.again()?, named.clone(), words, LoginFor::Source);
    let mut seen = HashSet::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(&image.layers) {
        if seen.insert(diff_id) {
            let digest = descriptor.digest()?;
            layer(store, &stored, words, (descriptor, diff_id), progress, &mut report)
                .with_context(|| format!("{}: layer {}", named.reference, digest.short()))?;
        }
    }
    // What of the layers is wrong would be told of the patches again.
    if !report.wrong {
        let found = store.check_patches(&image, repair).with_context(|| named.reference.clone())?;
        report.take(found, "what layers take from each other");
    }
    whole(store, &image, &mut report)?;
    Ok(report)
}

fn repair(words: &ArgMatches) -> Repair {
    if cli::flag(words, "repair") { Repair::Replace } else { Repair::No }
}

/// Whether all that the image is stacked of is there.
fn whole(store: &Store, image: &Image, report: &mut Report) -> Result<()> {
    if !report.wrong && store.image(&image.manifest)?.is_none() {
        report.wrong("incomplete after a power loss; pull it again".into());
    }
    Ok(())
}

fn layer(
    store: &Store,
    stored: &Stored,
    words: &ArgMatches,
    (descriptor, diff_id): (&Descriptor, &Digest),
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    let repair = repair(words);
    let digest = descriptor.digest()?;
    let kept = store.check_blob(&digest)?;
    if kept == Some(false) {
        if repair == Repair::Replace {
            store.remove_blob(&digest)?;
            report.repaired = true;
            report.lines.push(format!(
                "blob {}: was altered; removed, \"creel pull --store-blobs\" fetches it again",
                digest.short()
            ));
        } else {
            report.wrong(format!("blob {}: altered", digest.short()));
        }
    }
    let layer = progress.layer(descriptor);
    let source: Result<Box<dyn Read + Send>> = match kept {
        Some(true) => stored.layer(descriptor),
        Some(false) | None if cli::flag(words, "offline") => {
            report.unknown += 1;
            report.lines.push(format!(
                "layer {}: not compared; its compressed form is not in the store",
                digest.short()
            ));
            return Ok(());
        }
        Some(false) | None => stored.layer_from_origin(descriptor),
    };
    let source = match source {
        Ok(source) => source,
        Err(error) => {
            report.unknown += 1;
            report.lines.push(format!("layer {}: not compared: {error:#}", digest.short()));
            return Ok(());
        }
    };
    let checked = store.check_layer(diff_id, layer.reader(source), &digest, descriptor.size, repair)?;
    layer.done();
    report.take(checked, &format!("layer {}", digest.short()));
    Ok(())
}
