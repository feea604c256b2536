//! Which image a word on the command line means.
//!
//! A name without a registry has Docker's meaning, unless registries.conf gives it another: an alias, or the
//! registries to search for it (containers-registries.conf(5)). `docker://NAME` has Docker's meaning always.

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::reference::Source;
use creel_registry::{Client, Options, ShortNames};

use crate::access::{self, End};

/// All that a text may mean, the first first. Only a name without a registry may mean several things.
pub fn candidates(text: &str) -> Result<Vec<Source>> {
    let source = text.parse::<Source>().with_context(|| format!("{text:?}"))?;
    if !matches!(source, Source::Registry(_)) || text.starts_with("docker://") || has_registry(text) {
        return Ok(vec![source]);
    }
    let client = Client::new(Options::new(access::environment()))?;
    let bare = bare(text);
    if let Some(meant) = client.alias(bare) {
        let text = format!("{meant}{}", &text[bare.len()..]);
        let source = text.parse().with_context(|| format!("{text:?}, by an alias of registries.conf"))?;
        return Ok(vec![source]);
    }
    let search = client.search_registries();
    if search.len() > 1 && client.short_names() == ShortNames::Enforcing {
        bail!(
            "{text:?} may be in {}, and short-name-mode of registries.conf forbids to guess; write the registry before it",
            search.join(" or in ")
        );
    }
    if search.is_empty() {
        return Ok(vec![source]);
    }
    let at = |registry: &String| {
        let text = format!("{registry}/{text}");
        text.parse().with_context(|| format!("{text:?}, by unqualified-search-registries of registries.conf"))
    };
    search.iter().map(at).collect()
}

/// The first that a text may mean, where only one thing can be looked at.
pub fn parse(text: &str) -> Result<Source> {
    candidates(text)?.into_iter().next().context("nothing is meant")
}

/// What a text means, found out by asking registries where it may mean several things.
pub fn resolve(text: &str, words: &ArgMatches) -> Result<Source> {
    let candidates = candidates(text)?;
    check_login(&candidates, text, words)?;
    first_there(candidates, text, words)
}

/// Refuses a credential that each of several registries would get until one takes it.
pub fn check_login(candidates: &[Source], text: &str, words: &ArgMatches) -> Result<()> {
    match access::login_flag(words) {
        Some(flag) if candidates.len() > 1 => {
            bail!(
                "--{flag}: {text:?} may be in any of the registries to search; write the registry before it"
            )
        }
        Some(_) | None => Ok(()),
    }
}

/// The first of these that its registry has.
pub fn first_there(mut candidates: Vec<Source>, text: &str, words: &ArgMatches) -> Result<Source> {
    if candidates.len() == 1 {
        return Ok(candidates.remove(0));
    }
    let client = access::client(words, End::Source)?;
    let mut answers = Vec::new();
    for candidate in candidates {
        let Source::Registry(reference) = &candidate else { return Ok(candidate) };
        let found = client
            .repository(reference)
            .and_then(|repository| repository.manifest_head(reference.manifest_name()));
        match found {
            Ok(Some(_)) => return Ok(candidate),
            Ok(None) => answers.push(format!("{reference}: not found")),
            Err(error) => answers.push(error.to_string()),
        }
    }
    bail!("{text}: none of the registries to search has it: {}", answers.join(" | "))
}

/// The name without tag and digest.
fn bare(text: &str) -> &str {
    let name = text.split('@').next().unwrap_or(text);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    name[last..].find(':').map_or(name, |colon| &name[..last + colon])
}

fn has_registry(text: &str) -> bool {
    text.split_once('/').is_some_and(|(first, _)| first == "localhost" || first.contains(['.', ':', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_tag_and_digest() {
        for (text, name) in [
            ("alpine", "alpine"),
            ("alpine:3", "alpine"),
            ("team/tool@sha256:00", "team/tool"),
            ("team/tool:1@sha256:00", "team/tool"),
        ] {
            assert_eq!(bare(text), name);
            assert!(!has_registry(text));
        }
        for text in ["localhost/a", "a.example/b", "localhost:5000/a", "[::1]/a"] {
            assert!(has_registry(text), "{text}");
        }
    }
}
