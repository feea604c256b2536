//! A registry that asks for nothing.

use std::io::{Cursor, Read};

use creel_registry::{Pushed, Upload};

use crate::harness::registry::Registry;
use crate::harness::{Home, bytes, digest, manifest, push, push_image, read, read_to_end};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn source(bytes: &[u8]) -> impl Fn() -> std::io::Result<Box<dyn Read + Send>> {
    let owned = bytes.to_vec();
    move || Ok(Box::new(Cursor::new(owned.clone())))
}

#[test]
fn what_is_pushed_is_pulled_the_same() {
    let Some(registry) = Registry::plain("what_is_pushed_is_pulled_the_same") else { return };
    let home = Home::new();
    let repository = home.repository(&registry.host, "team/app");
    repository.ping().unwrap();
    for (length, upload) in [
        (0, Upload::Monolithic),
        (1, Upload::Monolithic),
        (2_500_000, Upload::Monolithic),
        (3, Upload::Chunked(1 << 20)),
        (3 << 20, Upload::Chunked(1 << 20)),
        ((2 << 20) + 7, Upload::Chunked(1 << 20)),
    ] {
        let blob = bytes(length);
        let (digest, size) = (digest(&blob), length as u64);
        assert_eq!(repository.blob_size(&digest).unwrap(), None);
        let pushed = repository.push_blob(&digest, size, &source(&blob), upload, None).unwrap();
        assert_eq!(pushed, Pushed::Uploaded, "{length} {upload:?}");
        let pushed = repository.push_blob(&digest, size, &source(&blob), upload, None).unwrap();
        assert_eq!(pushed, Pushed::Already);
        assert_eq!(repository.blob_size(&digest).unwrap(), Some(size));
        assert_eq!(read(&repository, &blob).unwrap(), blob);
    }
    let layer = bytes(1000);
    let digest = push_image(&repository, "v1", &layer);
    for name in ["v1", digest.as_str()] {
        let found = repository.manifest(name).unwrap();
        assert_eq!(found.bytes, manifest(&layer, "").as_bytes());
        assert_eq!((found.media_type.as_deref(), found.digest), (Some(MANIFEST), digest.clone()));
        let head = repository.manifest_head(name).unwrap().unwrap();
        assert_eq!((head.digest, head.media_type.as_deref()), (Some(digest.clone()), Some(MANIFEST)));
    }
    assert_eq!(home.pauses(), []);
}

#[test]
fn what_is_not_there_is_said_so() {
    let Some(registry) = Registry::plain("what_is_not_there_is_said_so") else { return };
    let repository = Home::new().repository(&registry.host, "team/app");
    assert_eq!(repository.manifest_head("v1").unwrap(), None);
    let error = repository.manifest("v1").unwrap_err();
    assert!(error.is_not_found());
    let expected = format!(
        "{}: GET /v2/team/app/manifests/v1: 404 not found: manifest unknown; check the name, the tag and the registry",
        registry.host
    );
    assert_eq!(error.to_string(), expected);
    assert!(read(&repository, b"nothing").unwrap_err().contains("404 not found"));
    assert!(repository.tags().unwrap_err().is_not_found());
}

#[test]
fn a_stored_part_is_not_fetched_again() {
    let Some(registry) = Registry::plain("a_stored_part_is_not_fetched_again") else { return };
    let repository = Home::new().repository(&registry.host, "app");
    let blob = bytes(500_000);
    let digest = push(&repository, &blob);
    for offset in [1, 499_999, 500_000] {
        let rest = read_to_end(repository.blob(&digest, 500_000, offset).unwrap()).unwrap();
        assert_eq!(rest, &blob[usize::try_from(offset).unwrap()..], "{offset}");
    }
    assert!(repository.blob(&digest, 500_000, 500_001).is_err());
}

#[test]
fn a_blob_of_another_repository_is_mounted() {
    let Some(registry) = Registry::plain("a_blob_of_another_repository_is_mounted") else { return };
    let home = Home::new();
    let blob = bytes(1000);
    let digest = push(&home.repository(&registry.host, "from"), &blob);
    let to = home.repository(&registry.host, "to");
    let unread = || -> std::io::Result<Box<dyn Read + Send>> { panic!("a mounted blob is not read") };
    let pushed = to.push_blob(&digest, 1000, &unread, Upload::Monolithic, Some("from")).unwrap();
    assert_eq!(pushed, Pushed::Mounted);
    assert_eq!(read(&to, &blob).unwrap(), blob);
    // What is not there to mount is uploaded.
    let other = bytes(1001);
    let other_digest = crate::harness::digest(&other);
    let pushed =
        to.push_blob(&other_digest, 1001, &source(&other), Upload::Monolithic, Some("from")).unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
}

#[test]
fn a_source_that_ends_early_or_lies_pushes_nothing() {
    let Some(registry) = Registry::plain("a_source_that_ends_early_or_lies_pushes_nothing") else { return };
    let repository = Home::new().repository(&registry.host, "app");
    let blob = bytes(1000);
    let digest = digest(&blob);
    for upload in [Upload::Monolithic, Upload::Chunked(300)] {
        let error = repository.push_blob(&digest, 1000, &source(&blob[..999]), upload, None).unwrap_err();
        assert_eq!(error.to_string(), format!("{digest}: read: ends 1 bytes early"), "{upload:?}");
        let other = bytes(2000)[1000..].to_vec();
        let error = repository.push_blob(&digest, 1000, &source(&other), upload, None).unwrap_err();
        assert_eq!(error.status(), Some(400), "{error}");
        assert_eq!(repository.blob_size(&digest).unwrap(), None);
    }
}

#[test]
fn tags_and_referrers_are_listed() {
    let Some(registry) = Registry::plain("tags_and_referrers_are_listed") else { return };
    let repository = Home::new().repository(&registry.host, "app");
    let layer = bytes(10);
    let subject = push_image(&repository, "v1", &layer);
    push_image(&repository, "v2", &layer);
    let mut tags = repository.tags().unwrap();
    tags.sort();
    assert_eq!(tags, ["v1", "v2"]);
    assert_eq!(repository.referrers(&subject, None).unwrap(), []);

    let refers = |kind: &str| {
        let size = manifest(&layer, "").len();
        let more = format!(
            r#""artifactType":"{kind}","annotations":{{"a":"b"}},"subject":{{"mediaType":"{MANIFEST}","digest":"{subject}","size":{size}}},"#
        );
        let bytes = manifest(&layer, &more);
        let name = digest(bytes.as_bytes());
        // Twice: the entry is made once.
        for _ in 0..2 {
            assert_eq!(repository.push_manifest(name.as_str(), MANIFEST, bytes.as_bytes()).unwrap(), name);
        }
        name
    };
    let (one, two) = (refers("application/one"), refers("application/two"));
    let all = repository.referrers(&subject, None).unwrap();
    let found: Vec<_> = all.iter().map(|entry| entry.digest_text().to_owned()).collect();
    assert_eq!(found, [one.as_str(), two.as_str()]);
    let some = repository.referrers(&subject, Some("application/two")).unwrap();
    assert_eq!(some.len(), 1);
    assert_eq!(
        (some[0].digest_text(), some[0].artifact_type.as_deref()),
        (two.as_str(), Some("application/two"))
    );
    assert_eq!(some[0].annotations.get("a").map(String::as_str), Some("b"));
}
