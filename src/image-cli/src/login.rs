//! `login` and `logout`: credentials where podman and docker find them too.

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::reference::DEFAULT_REGISTRY;
use creel_registry::Client;
use creel_registry::credentials::{Credential, Login, Stored};

use crate::{access, cli, output, prompt};

fn registry(words: &ArgMatches) -> String {
    let text = cli::value::<String>(words, "registry").unwrap_or_else(|| DEFAULT_REGISTRY.to_owned());
    let text =
        text.trim_start_matches("docker://").trim_start_matches("https://").trim_start_matches("http://");
    let host = text.split('/').next().unwrap_or_default();
    if matches!(host, "index.docker.io" | "registry-1.docker.io") {
        DEFAULT_REGISTRY.to_owned()
    } else {
        host.to_owned()
    }
}

fn stored(client: &Client, registry: &str) -> Result<Option<Credential>> {
    Ok(client.credentials().find(registry, "")?)
}

fn user_of(credential: &Credential) -> Option<&str> {
    match &credential.login {
        Login::Password { user, .. } => Some(user),
        Login::Identity(_) | Login::Bearer(_) => None,
    }
}

/// Asks the registry whether it takes the credential, then stores it.
pub fn login(words: &ArgMatches) -> Result<()> {
    let registry = registry(words);
    let client = access::client_without_login(words)?;
    let known = stored(&client, &registry).with_context(|| registry.clone())?;
    if cli::flag(words, "get-login") {
        return match known.as_ref().and_then(user_of) {
            Some(user) => output::write(&format!("{user}\n")),
            None => bail!("{registry}: not logged in"),
        };
    }
    let Some(login) = given(words, &registry, &client, known.as_ref())? else {
        return output::write("Existing credentials are valid. Login Succeeded!\n");
    };
    client.check_login(&registry, &login)?;
    let stored = client.credentials().store(&registry, &login).with_context(|| registry.clone())?;
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
    let registry = registry(words);
    let client = access::client_without_login(words)?;
    let removed = client.credentials().erase(&registry)?;
    match stored(&client, &registry)? {
        // Another file has one too, which docker or podman wrote.
        Some(other) if removed => {
            output::warning(&format!(
                "{registry}: {} has a credential too, and it is used now",
                other.source
            ));
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
