//! URLs of the protocol: where a `Location` or `Link` points, and which host a URL belongs to.

use ureq::http::Uri;

/// Scheme, name and port: a credential for one is never sent to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of an absolute http or https URL.
    pub(crate) fn of(uri: &Uri) -> Option<Origin> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None => Self::default_port(https),
        };
        (!host.is_empty()).then_some(Origin { https, host, port })
    }

    fn default_port(https: bool) -> u16 {
        if https { 443 } else { 80 }
    }

    /// The name, with the port where it is not the scheme's own.
    pub(crate) fn name(&self) -> String {
        if self.port == Self::default_port(self.https) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The URL that `reference` means in a document at `base` (RFC 3986, 5.2): absolute, or relative in any
/// of its forms. Nothing when it is no URL of http or https, or holds user information.
pub(crate) fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.trim();
    let reference = reference.split('#').next()?;
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let absolute = if has_scheme(reference) {
        reference.to_owned()
    } else if let Some(rest) = reference.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.starts_with('?') || reference.is_empty() {
        format!("{scheme}://{authority}{}{reference}", base.path())
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{reference}")
    };
    let uri: Uri = absolute.parse().ok()?;
    Origin::of(&uri)?;
    (!uri.authority()?.as_str().contains('@')).then_some(uri)
}

fn has_scheme(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}

/// The target of `rel="next"` in a `Link` header (RFC 8288).
pub(crate) fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>')?;
        let target = &rest[start + 1..end];
        let parameters = &rest[end + 1..];
        let own = &parameters[..parameters.find('<').unwrap_or(parameters.len())];
        let is_next = own.split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or(("", ""));
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(target);
        }
        rest = parameters;
    }
    None
}

/// `text` as a value of a query: everything but unreserved characters percent-encoded.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `uri` with `name=value` added to its query, which keeps what it had.
pub(crate) fn with_query(uri: &Uri, pairs: &[(&str, &str)]) -> Option<Uri> {
    let mut text = uri.to_string();
    for (name, value) in pairs {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(&format!("{}={}", encode(name), encode(value)));
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Origin, encode, next_link, resolve, with_query};

    #[test]
    fn every_form_of_location_is_resolved() {
        let base = "https://registry.example:5000/v2/a/blobs/uploads/?x=1".parse().unwrap();
        let cases = [
            ("https://cdn.example/b?sig=1#f", Some("https://cdn.example/b?sig=1")),
            ("//cdn.example/b", Some("https://cdn.example/b")),
            (
                "/v2/a/blobs/uploads/7?state=x",
                Some("https://registry.example:5000/v2/a/blobs/uploads/7?state=x"),
            ),
            ("7", Some("https://registry.example:5000/v2/a/blobs/uploads/7")),
            ("?n=2", Some("https://registry.example:5000/v2/a/blobs/uploads/?n=2")),
            ("file:///etc/passwd", None),
            ("https://user:secret@cdn.example/", None),
            ("https://", None),
        ];
        for (reference, expected) in cases {
            let found = resolve(&base, reference).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://A.example/x"), origin("https://a.example:443/y"));
        assert_ne!(origin("https://a.example"), origin("http://a.example"));
        assert_ne!(origin("https://a.example"), origin("https://a.example:444"));
        assert_eq!(origin("https://a.example:5000").name(), "a.example:5000");
    }

    #[test]
    fn the_next_link_is_found_among_others() {
        assert_eq!(
            next_link("</v2/a/tags/list?last=b&n=2>; rel=\"next\""),
            Some("/v2/a/tags/list?last=b&n=2")
        );
        assert_eq!(next_link("</p>; rel=prev, </n>; title=x; rel=\"last next\""), Some("/n"));
        assert_eq!(next_link("</p>; rel=prev"), None);
        assert_eq!(next_link("</p"), None);
    }

    #[test]
    fn queries_keep_what_they_had() {
        let uri = with_query(&"https://a.example/u?_state=A%3D".parse().unwrap(), &[("digest", "sha256:00")]);
        assert_eq!(uri.unwrap().to_string(), "https://a.example/u?_state=A%3D&digest=sha256%3A00");
        assert_eq!(encode("a b/ü"), "a%20b%2F%C3%BC");
    }

    proptest::proptest! {
        #[test]
        fn no_location_or_link_panics(text in ".{0,80}") {
            let base = "https://registry.example/v2/".parse().unwrap();
            let _ = (resolve(&base, &text), next_link(&text));
        }
    }
}
