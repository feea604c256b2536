//! What the machine says of registries: mirrors and rewrites, certificates, proxies.

pub(crate) mod certs;
pub(crate) mod hosts;
pub(crate) mod proxy;
pub(crate) mod registries;

/// Whether `host`, with or without a port, is this machine's own loopback.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
