//! References and challenges: text to data.

use creel_image_lib::reference::Source;
use creel_registry::challenge;

/// What a reference says is told so that it reads as the same again.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(source) = text.parse::<Source>() else { return };
    let told = source.to_string();
    let again = told.parse::<Source>();
    assert!(again.as_ref().is_ok_and(|again| *again == source), "{text:?} is {source:?}, {told:?} {again:?}");
    if let Source::Registry(reference) = source {
        // Host, repository and tag or digest go into URLs: none leaves its place there. A tag may have two dots
        // within (distribution-spec, "Pulling manifests"), but is not a step up.
        let plain = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        let (host, name) = (reference.registry(), reference.manifest_name());
        assert!(plain(host, b".-_:[]") && !host.contains(".."), "{host:?}");
        let repository = reference.repository();
        let component = |part: &str| plain(part, b"._-") && !part.starts_with('.') && !part.contains("..");
        assert!(repository.split('/').all(component), "{repository:?}");
        assert!(plain(name, b"._-:+=") && !name.starts_with('.'), "{name:?}");
    }
}

/// Any header gives a list that is no longer than the header, in lower case.
pub fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let challenges = challenge::parse(text);
    let sizes = challenges.iter().map(|challenge| {
        challenge.scheme.len()
            + challenge.parameters.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    });
    assert!(sizes.sum::<usize>() <= text.len(), "{challenges:?}");
    for challenge in &challenges {
        assert!(!challenge.scheme.is_empty());
        assert_eq!(challenge.scheme, challenge.scheme.to_ascii_lowercase());
        for (name, value) in &challenge.parameters {
            assert!(challenge.parameter(name).is_some(), "{name}={value}");
        }
    }
}
