//! `login` and `logout`: credentials where podman and docker find them too.

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::reference::DEFAULT_REGISTRY;
use creel_registry::Client;
use creel_registry::credentials::{Credential, Login, Stored};

use crate::{access, cli, output, prompt};

/// A registry, and what follows it: credentials may be for a part of a registry alone.
fn place(words: &ArgMatches) -> (String, String) {
    let text = cli::value::<String>(words, "registry").unwrap_or_else(|| DEFAULT_REGISTRY.to_owned());
    let text =
        text.trim_start_matches("docker://").trim_start_matches("https://").trim_start_matches("http://");
    let (host, repository) = text.split_once('/').unwrap_or((text, ""));
    let is_docker = matches!(host, "index.docker.io" | "registry-1.docker.io");
    (if is_docker { DEFAULT_REGISTRY } else { host }.to_owned(), repository.to_owned())
}

/// `--get-login`: who one is there, and which file or helper says so.
fn tell(client: &Client, registry: &str, repository: &str) -> Result<()> {
    let found = client.credentials().find(registry, repository).with_context(|| registry.to_owned())?;
    let Some(found) = found else { bail!("{registry}: not logged in") };
    output::line(&format!("from {}", found.source));
    // Docker's mark for a token.
    output::write(&format!("{}\n", user_of(&found).unwrap_or("<token>")))
}

/// What a credential is stored under.
fn key(registry: &str, repository: &str) -> String {
    if repository.is_empty() { registry.to_owned() } else { format!("{registry}/{repository}") }
}

fn user_of(credential: &Credential) -> Option<&str> {
    match &credential.login {
        Login::Password { user, .. } => Some(user),
        Login::Identity(_) | Login::Bearer(_) => None,
    }
}

/// Asks the registry whether it takes the credential, then stores it.
pub fn login(words: &ArgMatches) -> Result<()> {
    let (registry, repository) = place(words);
    let client = access::client_without_login(words)?;
    if cli::flag(words, "get-login") {
        return tell(&client, &registry, &repository);
    }
    let known = client.credentials().find(&registry, &repository).with_context(|| registry.clone())?;
    let Some(login) = given(words, &registry, &client, known.as_ref())? else {
        return output::write("Existing credentials are valid. Login Succeeded!\n");
    };
    client.check_login(&registry, &login)?;
    let key = key(&registry, &repository);
    let stored = client.credentials().store(&key, &login).with_context(|| key.clone())?;
    output::line(&match stored {
        Stored::File(path) => format!("the password lies in {}, not encrypted", path.display()),
        Stored::Helper(name) => format!("{name} keeps the password"),
    });
    output::write("Login Succeeded!\n")
}

/// The credential of the command line, or the one that is typed; none when the stored one is still good.
fn given(
    words: &ArgMatches,
    registry: &str,
    client: &Client,
    known: Option<&Credential>,
) -> Result<Option<Login>> {
    let user = cli::value::<String>(words, "username");
    let has_password =
        cli::flag(words, "password-stdin") || cli::value::<String>(words, "password").is_some();
    if cli::value::<String>(words, "creds").is_some() || (user.is_some() && has_password) {
        return access::login(words);
    }
    if has_password {
        bail!("{registry}: name the user that the password is of with --username");
    }
    if let (Some(known), None) = (known, &user) {
        output::line(&format!("trying the credential of {}", known.source));
        match client.check_login(registry, &known.login) {
            Ok(()) => return Ok(None),
            Err(error) if prompt::terminal().is_none() => return Err(error.into()),
            Err(error) => output::warning(&error.to_string()),
        }
    }
    let Some(mut terminal) = prompt::terminal() else {
        bail!("{registry}: name the user with --username and pipe the password in with --password-stdin");
    };
    let user = match user {
        Some(user) => user,
        None => prompt::user(&mut terminal, known.and_then(user_of))?,
    };
    let password = prompt::password(&mut terminal)?;
    Ok(Some(Login::from((user.as_str(), password.as_str()))))
}

/// Removes the stored credential.
pub fn logout(words: &ArgMatches) -> Result<()> {
    let (host, repository) = place(words);
    let registry = key(&host, &repository);
    let client = access::client_without_login(words)?;
    let removed = client.credentials().erase(&registry)?;
    match client.credentials().find(&host, &repository)? {
        // Another file has one too, which docker or podman wrote.
        Some(other) if removed => {
            output::warning(&format!("{registry}: {} has a credential too, which is used now", other.source));
        }
        Some(other) => {
            bail!(
                "{registry}: the credential is in {}, where login does not write; remove it there",
                other.source
            )
        }
        None if removed => {}
        None => bail!("{registry}: not logged in; no credential is stored"),
    }
    output::write(&format!("Removed login credentials for {registry}\n"))
}
