//! `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in either case, with curl's and Go's meaning.

use std::net::IpAddr;

use ureq::Proxy;

use super::is_loopback;
use crate::environment::Environment;
use crate::error::Error;
use crate::location::Origin;

/// The proxies of the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exempt: Vec<Exempt>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exempt {
    All,
    /// An address block.
    Block(IpAddr, u8),
    /// A host and, unless `only_below`, also that name itself; of one port or of all.
    Host {
        name: String,
        port: Option<u16>,
        only_below: bool,
    },
}

impl Proxies {
    pub(crate) fn of(environment: &Environment) -> Result<Self, Error> {
        let read = |name: &str| -> Result<Option<Proxy>, Error> {
            for name in [name.to_owned(), name.to_ascii_lowercase()] {
                if let Some(value) = environment.text(&name) {
                    // The value may hold a password: it is not repeated.
                    return Proxy::new(value)
                        .map(Some)
                        .map_err(|_| Error::Invalid(format!("{name}: not a proxy's URL")));
                }
            }
            Ok(None)
        };
        let all = read("ALL_PROXY")?;
        let exempt = environment.text("NO_PROXY").or_else(|| environment.text("no_proxy")).unwrap_or("");
        Ok(Self {
            http: read("HTTP_PROXY")?.or_else(|| all.clone()),
            https: read("HTTPS_PROXY")?.or(all),
            exempt: exempt.split([',', ' ']).filter(|e| !e.is_empty()).map(Exempt::parse).collect(),
        })
    }

    /// The proxy for a request; none for this machine itself.
    pub(crate) fn choose(&self, origin: &Origin) -> Option<Proxy> {
        let host = origin.host.trim_start_matches('[').trim_end_matches(']');
        if is_loopback(&origin.host) || self.exempt.iter().any(|exempt| exempt.covers(host, origin.port)) {
            return None;
        }
        if origin.https { self.https.clone() } else { self.http.clone() }
    }
}

impl Exempt {
    fn parse(text: &str) -> Self {
        if text == "*" {
            return Self::All;
        }
        let text = text.to_ascii_lowercase();
        if let Some((block, bits)) = text.split_once('/') {
            if let (Ok(address), Ok(bits)) = (block.parse(), bits.parse()) {
                return Self::Block(address, bits);
            }
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Self::Block(address, if address.is_ipv4() { 32 } else { 128 });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
            _ => (text.as_str(), None),
        };
        let below = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        Self::Host { name: below.unwrap_or(name).to_owned(), port, only_below: below.is_some() }
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Block(block, bits) => {
                host.parse().is_ok_and(|address: IpAddr| leading(*block, *bits) == leading(address, *bits))
            }
            Self::Host { name, port: own, only_below } => {
                let below = host.strip_suffix(name.as_str());
                own.is_none_or(|own| own == port)
                    && below.is_some_and(|rest| rest.ends_with('.') || (rest.is_empty() && !only_below))
            }
        }
    }
}

/// The first `bits` of an address, with its family.
fn leading(address: IpAddr, bits: u8) -> (bool, u128) {
    let (value, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let drop = u32::from(width - bits.min(width));
    (width == 32, value.checked_shr(drop).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Proxies;
    use crate::environment::Environment;
    use crate::location::Origin;

    #[test]
    fn the_scheme_and_the_exceptions_choose_the_proxy() {
        let environment = Environment::new(
            0,
            [
                ("HTTP_PROXY", "http://plain.example:1"),
                ("https_proxy", "http://tls.example:2"),
                ("NO_PROXY", "corp.example, .below.example,10.0.0.0/8,192.0.2.7,port.example:5000,fd00::/8"),
            ],
        );
        let proxies = Proxies::of(&environment).unwrap();
        let cases = [
            ("http://a.example", Some("plain.example")),
            ("https://a.example", Some("tls.example")),
            ("https://corp.example", None),
            ("https://x.corp.example:444", None),
            ("https://notcorp.example", Some("tls.example")),
            ("https://below.example", Some("tls.example")),
            ("https://x.below.example", None),
            ("https://10.1.2.3", None),
            ("https://11.1.2.3", Some("tls.example")),
            ("https://192.0.2.7", None),
            ("https://192.0.2.8", Some("tls.example")),
            ("https://port.example:5000", None),
            ("https://port.example", Some("tls.example")),
            ("https://[fd00::1]", None),
            ("https://[fe00::1]", Some("tls.example")),
            ("https://localhost:5000", None),
            ("http://127.0.0.2", None),
            ("http://[::1]:80", None),
        ];
        for (url, expected) in cases {
            let origin = Origin::of(&url.parse().unwrap()).unwrap();
            let proxy = proxies.choose(&origin);
            assert_eq!(proxy.as_ref().map(|proxy| proxy.host()), expected, "{url}");
        }
    }

    #[test]
    fn a_bad_proxy_is_named_without_its_password() {
        let environment = Environment::new(0, [("HTTPS_PROXY", "gopher://u:secret@x")]);
        assert_eq!(Proxies::of(&environment).unwrap_err().to_string(), "HTTPS_PROXY: not a proxy's URL");
    }
}
