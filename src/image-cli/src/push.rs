//! `push`: an image of the store, or of a layout or an archive, to a registry.

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::reference::Source;

use crate::origin::{self, Origin};
use crate::progress::{PUSH, Progress};
use crate::stored::{LoginFor, Stored};
use crate::{cli, copy, images, names, setup};

/// `creel push`
pub fn command(globals: &ArgMatches, words: &ArgMatches) -> Result<()> {
    let text = cli::value::<String>(words, "image").unwrap_or_default();
    let destination = cli::value::<String>(words, "destination");
    let to = destination.as_deref().map(names::parse).transpose()?;
    // What begins like a digest is no name of a registry.
    let source = text.parse::<Source>();
    if let Ok(source @ (Source::Stdin | Source::Layout { .. } | Source::OciArchive { .. })) = &source {
        return from_files(source, to, words);
    }
    if let Ok(source @ (Source::DockerArchive { .. } | Source::Dir { .. })) = &source {
        return from_files(source, to, words);
    }
    if let Some(flag) = ["all", "referrers"].into_iter().find(|flag| cli::flag(words, flag)) {
        bail!(
            "--{flag}: the store has one platform of an image, and nothing that refers to it; \"creel copy\" moves both from where the image comes from"
        );
    }
    let store = setup::store(globals)?;
    let found = images::find(&store, &text)?;
    if to.is_none() && found.len() > 1 {
        bail!("{text}: has several names; write one of them, or a destination");
    }
    let named = found.into_iter().next().context("no such image")?;
    let to = match to {
        Some(to) => to,
        None => named.reference.parse().ok().filter(|to| matches!(to, Source::Registry(_))).with_context(
            || format!("{text}: was not pulled from a registry; write where to push it, as docker://HOST/NAME:TAG"),
        )?,
    };
    let name = named.reference.clone();
    let origin = Origin::Stored(Box::new(Stored::new(store, named, words, LoginFor::Destination)));
    let progress = Progress::new(words, PUSH, &origin::name(&to));
    copy::transfer(words, (&origin, &name), &to, &progress)
}

fn from_files(source: &Source, to: Option<Source>, words: &ArgMatches) -> Result<()> {
    let name = origin::name(source);
    let Some(to) = to else { bail!("{name}: write where to push it, as docker://HOST/NAME:TAG") };
    let origin = Origin::open_to_use(source, words, &std::env::temp_dir()).with_context(|| name.clone())?;
    let progress = Progress::new(words, PUSH, &origin::name(&to));
    copy::transfer(words, (&origin, &name), &to, &progress)
}
