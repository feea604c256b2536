//! Where a URL that a stranger wrote may lead.
//!
//! The `urls` of a layer stand in a manifest that anyone may have pushed. They are followed without any
//! credential, and not to this machine nor to its own link, where services trust whoever can reach them
//! (a cloud's metadata address is link-local). The addresses are checked where they are resolved for the
//! connection itself, so that a name cannot mean one thing to the check and another to the connection.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How far requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    Anywhere,
    /// Not to this machine, nor its link.
    Beyond,
}

/// Resolves as usual and refuses addresses that are near, but for the proxy's own: that is the user's
/// choice, and may well be on this machine.
#[derive(Debug)]
pub(crate) struct BeyondResolver {
    inner: DefaultResolver,
    proxy: Option<String>,
}

impl BeyondResolver {
    pub(crate) fn new(proxy: Option<&ureq::Proxy>) -> Self {
        Self { inner: DefaultResolver::default(), proxy: proxy.map(|proxy| proxy.host().to_owned()) }
    }
}

impl Resolver for BeyondResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        if self.proxy.is_some() && self.proxy.as_deref() == uri.host() {
            return Ok(found);
        }
        match found.iter().find(|address| is_near(address.ip())) {
            Some(address) => Err(ureq::Error::Other(refusal(address.ip()).into())),
            None => Ok(found),
        }
    }
}

/// The words for an address that is not gone to.
pub(crate) fn refusal(address: IpAddr) -> String {
    format!("{address} is of this machine or its link, where a layer's urls are not followed to")
}

/// Loopback, link-local and unspecified addresses, in IPv4, IPv6, and IPv4 within IPv6.
pub(crate) fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::is_near;

    #[test]
    fn near_addresses_are_known_in_every_form() {
        for near in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "fd00::1"] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }
}
