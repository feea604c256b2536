//! `login` and `logout`: credentials where podman and docker find them too.

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_registry::credentials::{Login, Stored};

use crate::{access, cli, output};

fn registry(words: &ArgMatches) -> String {
    let text = cli::value::<String>(words, "registry").unwrap_or_default();
    let text =
        text.trim_start_matches("docker://").trim_start_matches("https://").trim_start_matches("http://");
    let host = text.split('/').next().unwrap_or_default();
    if matches!(host, "index.docker.io" | "registry-1.docker.io") {
        "docker.io".to_owned()
    } else {
        host.to_owned()
    }
}

/// Asks the registry whether it takes the credential, then stores it.
pub fn login(words: &ArgMatches) -> Result<()> {
    let registry = registry(words);
    let Some(login) = access::login(words)? else {
        bail!("{registry}: name the user with --username and pipe the password in with --password-stdin");
    };
    let Login::Password { .. } = login else { bail!("{registry}: only users with passwords log in") };
    let client = access::client(words)?;
    client.check_login(&registry, &login)?;
    let stored = client.credentials().store(&registry, &login).with_context(|| registry.clone())?;
    output::line(&match stored {
        Stored::File(path) => {
            format!("logged in to {registry}; the password lies in {}, not encrypted", path.display())
        }
        Stored::Helper(name) => format!("logged in to {registry}; {name} keeps the password"),
    });
    Ok(())
}

/// Removes the stored credential.
pub fn logout(words: &ArgMatches) -> Result<()> {
    let registry = registry(words);
    let client = access::client(words)?;
    if !client.credentials().erase(&registry)? {
        bail!("{registry}: no credential is stored in the file that login writes");
    }
    output::line(&format!("logged out of {registry}"));
    Ok(())
}
