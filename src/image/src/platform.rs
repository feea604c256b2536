//! Platforms: what an image runs on, and which image of an index suits a machine.
//!
//! The words are Go's GOOS and GOARCH (image-spec image-index.md, "Platform Variants"). Variants are
//! ordered: a machine runs its own and the lower ones, and the highest that an index offers is taken.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::descriptor::{Descriptor, or_default};

/// `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH.
    pub architecture: String,
    /// GOOS.
    pub os: String,
    /// Version of Windows; not looked at.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of Windows; not looked at.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPlatform(String);

impl fmt::Display for BadPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a platform; write os/architecture or os/architecture/variant", self.0)
    }
}

impl std::error::Error for BadPlatform {}

impl Platform {
    /// A platform of three words, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let platform = Platform {
            architecture: architecture.to_string(),
            os: os.to_string(),
            os_version: None,
            os_features: Vec::new(),
            variant: variant.map(str::to_string),
        };
        platform.normalised()
    }

    /// This machine.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, host_variant())
    }

    /// The same platform in the words of the table: `aarch64` is `arm64`, `arm64/v8` is `arm64`,
    /// `arm` is `arm/v7`, `amd64/v1` is `amd64`.
    pub fn normalised(&self) -> Platform {
        let variant = self.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let architecture = self.architecture.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1" | "1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("i386" | "i686" | "x86" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "v8" | "8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "") => ("arm", "v7"),
            ("powerpc64le" | "ppc64le", "power8") => ("ppc64le", ""),
            ("powerpc64le" | "ppc64le", other) => ("ppc64le", other),
            ("riscv64" | "riscv64gc", "rva20u64") => ("riscv64", ""),
            ("riscv64gc", other) => ("riscv64", other),
            (architecture, other) => (architecture, other),
        };
        let number = variant.starts_with(|c: char| c.is_ascii_digit());
        let variant = if number { format!("v{variant}") } else { variant.to_string() };
        Platform {
            architecture: architecture.to_string(),
            os: self.os.to_ascii_lowercase(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: (!variant.is_empty()).then_some(variant),
        }
    }

    /// What this platform runs, best first: itself, its lower variants, no variant.
    ///
    /// A 64-bit machine is not offered 32-bit images: not every such processor runs them.
    pub fn runs(&self) -> Vec<Platform> {
        let own = self.normalised();
        let lower: &[&str] = match (own.architecture.as_str(), own.variant.as_deref()) {
            ("amd64", Some("v4")) => &["v3", "v2"],
            ("amd64", Some("v3")) => &["v2"],
            ("arm", Some("v8")) => &["v7", "v6", "v5"],
            ("arm", Some("v7")) => &["v6", "v5"],
            ("arm", Some("v6")) => &["v5"],
            ("ppc64le", Some("power11")) => &["power10", "power9"],
            ("ppc64le", Some("power10")) => &["power9"],
            ("riscv64", Some("rva23u64")) => &["rva22u64"],
            _ => &[],
        };
        let mut lower: Vec<String> = lower.iter().map(|variant| variant.to_string()).collect();
        if let ("arm64", Some((major, minor))) = (own.architecture.as_str(), own.arm64_version()) {
            // Arm's manual: Armv9.N has all of Armv8.(N+5).
            lower.extend((0..minor).rev().map(|m| arm64_variant(major, m)));
            if major == 9 {
                lower.extend((1..=minor.saturating_add(5)).rev().map(|m| arm64_variant(8, m)));
            }
        }
        let with = |variant: Option<String>| Platform { variant, ..own.clone() };
        let mut all = vec![own.clone()];
        all.extend(lower.into_iter().map(|variant| with(Some(variant))));
        // An image for arm without a variant counts as v7, which normalisation says already.
        if own.variant.is_some() && own.architecture != "arm" {
            all.push(with(None));
        }
        all
    }

    fn arm64_version(&self) -> Option<(u8, u8)> {
        let text = self.variant.as_deref()?.strip_prefix('v')?;
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let version = (major.parse().ok()?, minor.parse().ok()?);
        (matches!(version.0, 8 | 9) && version.1 < 16).then_some(version)
    }

    /// `unknown/unknown`: how buildkit marks entries that are no images.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    fn same(&self, other: &Platform) -> bool {
        self.os == other.os && self.architecture == other.architecture && self.variant == other.variant
    }

    /// The entries of an index that may be the image for this platform, best first.
    ///
    /// Among equals the order of the index counts. Entries without a platform come last: what they are for
    /// stands in their own content. Attestations are left out.
    pub fn choose<'a>(&self, entries: &'a [Descriptor]) -> Vec<&'a Descriptor> {
        let images: Vec<_> = entries.iter().filter(|entry| !entry.is_attestation()).collect();
        let mut chosen = Vec::new();
        for wanted in self.runs() {
            chosen.extend(images.iter().copied().filter(|entry| {
                entry.platform.as_ref().is_some_and(|found| found.normalised().same(&wanted))
            }));
        }
        chosen.extend(images.iter().copied().filter(|entry| entry.platform.is_none()));
        chosen
    }
}

fn arm64_variant(major: u8, minor: u8) -> String {
    if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") }
}

#[cfg(target_arch = "x86_64")]
fn host_variant() -> Option<&'static str> {
    // The levels of the x86-64 psABI, as far as their features can be asked for.
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2") && has!("popcnt");
    let v3 = v2
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let v4 =
        v3 && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => Some("v4"),
        (_, true, _) => Some("v3"),
        (true, _, _) => Some("v2"),
        (false, false, false) => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_variant() -> Option<&'static str> {
    None
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Platform, BadPlatform> {
        let words: Vec<&str> = text.split('/').collect();
        let good = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        match words.as_slice() {
            [os, architecture] if good(os) && good(architecture) => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] if words.iter().all(|word| good(word)) => {
                Ok(Platform::new(os, architecture, Some(variant)))
            }
            _ => Err(BadPlatform(text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn names(platform: &str) -> Vec<String> {
        platform.parse::<Platform>().unwrap().runs().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variants_fall_back_to_the_lower_ones() {
        assert_eq!(names("linux/amd64/v3"), ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]);
        assert_eq!(names("linux/arm64/v8"), ["linux/arm64"]);
        assert_eq!(names("linux/arm"), ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]);
        assert_eq!(names("linux/aarch64/8.1"), ["linux/arm64/v8.1", "linux/arm64/v8", "linux/arm64"]);
        assert!(names("linux/arm64/v9.1").contains(&"linux/arm64/v8.6".to_string()));
        assert_eq!(names("linux/s390x"), ["linux/s390x"]);
    }

    #[test]
    fn the_highest_variant_is_chosen_and_attestations_never() {
        let entry = |platform: Option<&str>, content: &[u8]| {
            let mut entry = Descriptor::of("application/vnd.oci.image.manifest.v1+json", content);
            entry.platform = platform.map(|text| text.parse().unwrap());
            entry
        };
        let entries = [
            entry(None, b"none"),
            entry(Some("unknown/unknown"), b"attestation"),
            entry(Some("linux/amd64"), b"v1"),
            entry(Some("linux/amd64/v2"), b"v2"),
            entry(Some("linux/amd64/v4"), b"v4"),
            entry(Some("linux/amd64/v2"), b"second v2"),
        ];
        let host = Platform::new("linux", "amd64", Some("v3"));
        let expected = [&entries[3], &entries[5], &entries[2], &entries[0]];
        assert_eq!(host.choose(&entries), expected);
    }

    #[test]
    fn a_platform_has_two_or_three_words() {
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/amd64/v2/", "lin ux/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
