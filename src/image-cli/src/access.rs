//! How registries are reached: what the command line says of credentials and certificates.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;
use creel_registry::credentials::Login;
use creel_registry::{Client, Environment, Options, Verification};

use crate::cli;

/// Makes the client that the words ask for. It connects to nothing yet.
pub fn client(words: &ArgMatches) -> Result<Client> {
    Ok(Client::new(options(words)?)?)
}

/// The same for a registry that the command line's credential is not meant for.
pub fn client_without_login(words: &ArgMatches) -> Result<Client> {
    let mut options = Options::new(Environment::of_process());
    options.authfile = cli::value::<PathBuf>(words, "authfile");
    if !cli::value::<bool>(words, "tls-verify").unwrap_or(true) {
        options.verification = Verification::Off;
    }
    Ok(Client::new(options)?)
}

/// The options of a client, without what only some commands have.
pub fn options(words: &ArgMatches) -> Result<Options> {
    let mut options = Options::new(Environment::of_process());
    options.authfile = cli::value::<PathBuf>(words, "authfile");
    options.login = login(words)?;
    if !cli::value::<bool>(words, "tls-verify").unwrap_or(true) {
        options.verification = Verification::Off;
    }
    Ok(options)
}

/// `--creds`, or `--username` with `--password` or `--password-stdin`.
pub fn login(words: &ArgMatches) -> Result<Option<Login>> {
    if let Some(creds) = cli::value::<String>(words, "creds") {
        let (user, password) = creds.split_once(':').ok_or_else(|| anyhow!("--creds is USER:PASSWORD"))?;
        return Ok(Some(Login::from((user, password))));
    }
    let Some(user) = cli::value::<String>(words, "username") else { return Ok(None) };
    let password = if cli::flag(words, "password-stdin") {
        let mut text = String::new();
        std::io::stdin().take(64 << 10).read_to_string(&mut text).context("read the password")?;
        text.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        match cli::value::<String>(words, "password") {
            Some(password) => password,
            None => bail!("--username needs a password: pipe it in with --password-stdin"),
        }
    };
    Ok(Some(Login::from((user.as_str(), password.as_str()))))
}
