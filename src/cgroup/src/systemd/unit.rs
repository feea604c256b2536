//! Names of slices and scopes (systemd.unit(5), systemd.slice(5)). Pure.

use crate::error::Invalid;

const AT: &str = ".linux.cgroupsPath";
const SLICE: &str = ".slice";
/// UNIT_NAME_MAX of systemd.
const LONGEST: usize = 255;

/// The scope of a container and the slice it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `docker-1234.scope`
    pub name: String,
    /// `system.slice`, or none for the default.
    pub slice: Option<String>,
}

impl Unit {
    /// Reads `slice:prefix:name`; an empty path is `:creel:ID`. Either of the first two may be empty.
    pub fn parse(cgroups_path: &str, id: &str) -> Result<Unit, Invalid> {
        let (slice, prefix, name) = if cgroups_path.is_empty() {
            ("", "creel", id)
        } else {
            let parts: Vec<&str> = cgroups_path.split(':').collect();
            let [slice, prefix, name] = parts.as_slice() else {
                let why = format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \
                     {cgroups_path:?} instead"
                );
                return Err(Invalid::new(AT, why));
            };
            (*slice, *prefix, *name)
        };
        if name.ends_with(SLICE) {
            let why = format!("{name:?} names a slice, which holds no processes; a container needs a scope");
            return Err(Invalid::new(AT, why));
        }
        let name = format!("{prefix}-{name}.scope");
        let is_valid = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        if name.len() > LONGEST || !name.bytes().all(is_valid) {
            return Err(Invalid::new(AT, format!("invalid unit name {name:?}")));
        }
        let slice = (!slice.is_empty()).then(|| slice.to_owned());
        if let Some(slice) = &slice {
            expand(slice)?;
        }
        Ok(Unit { name, slice })
    }
}

/// Where a slice lies in the hierarchy: `a-b.slice` is `a.slice/a-b.slice`, and `-.slice` the root.
pub fn expand(slice: &str) -> Result<String, Invalid> {
    let invalid = || Invalid::new(AT, format!("invalid slice name: {slice}"));
    let stem = slice.strip_suffix(SLICE).filter(|stem| !stem.contains('/')).ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    for (at, _) in stem.match_indices('-').chain(std::iter::once((stem.len(), ""))) {
        let upto = &stem[..at];
        // Neither empty nor with an empty part: test--a.slice, -test.slice.
        if upto.is_empty() || upto.ends_with('-') {
            return Err(invalid());
        }
        path.push_str(if path.is_empty() { "" } else { "/" });
        path.push_str(upto);
        path.push_str(SLICE);
    }
    Ok(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn slices_nest_by_their_dashes() {
        for (slice, path) in [
            ("system.slice", "system.slice"),
            ("test-a-b.slice", "test.slice/test-a.slice/test-a-b.slice"),
            ("-.slice", ""),
        ] {
            assert_eq!(expand(slice).unwrap(), path);
        }
        for slice in ["", ".slice", "system", "a/b.slice", "a--b.slice", "-a.slice", "a-.slice", "--.slice"] {
            assert!(expand(slice).is_err(), "{slice:?}");
        }
    }

    #[test]
    fn the_path_names_slice_and_scope() {
        let unit = |path: &str| Unit::parse(path, "web").map(|u| (u.name, u.slice));
        let of = |name: &str, slice: Option<&str>| Ok((name.to_owned(), slice.map(str::to_owned)));
        assert_eq!(unit(""), of("creel-web.scope", None));
        assert_eq!(unit("system.slice:docker:12"), of("docker-12.scope", Some("system.slice")));
        assert_eq!(unit(":runc:12"), of("runc-12.scope", None));
        assert_eq!(unit("a-b.slice::x"), of("-x.scope", Some("a-b.slice")));
    }

    #[test]
    fn wrong_paths_say_what_was_expected() {
        for (path, words) in [
            ("/kube/pod", "expected cgroupsPath to be of format \"slice:prefix:name\""),
            ("a.slice:b", "got \"a.slice:b\" instead"),
            ("a:b:c", "invalid slice name: a"),
            ("a.slice:b:c.slice", "names a slice"),
            ("a.slice:b:c/d", "invalid unit name \"b-c/d.scope\""),
            ("a.slice:b:", "b-.scope"),
        ] {
            match Unit::parse(path, "web") {
                Err(error) => {
                    assert!(error.to_string().contains(words), "{error}");
                    assert_eq!(error.at, AT);
                }
                Ok(unit) => assert_eq!((path, unit.name.as_str()), ("a.slice:b:", words)),
            }
        }
    }
}
