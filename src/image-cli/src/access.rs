//! How registries are reached: what the command line says of credentials and certificates.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail};
use clap::ArgMatches;
use creel_image_lib::reference::Source;
use creel_registry::credentials::Login;
use creel_registry::{Client, Environment, Notice, Options, Policy, Verification};

use crate::{cli, output};

/// Makes the client that the words ask for. It connects to nothing yet.
pub fn client(words: &ArgMatches) -> Result<Client> {
    Ok(Client::new(options(words)?)?)
}

/// The same for a registry that the command line's credential is not meant for.
pub fn client_without_login(words: &ArgMatches) -> Result<Client> {
    Ok(Client::new(without_login(words))?)
}

fn options(words: &ArgMatches) -> Result<Options> {
    let mut options = without_login(words);
    options.login = login(words)?;
    Ok(options)
}

fn without_login(words: &ArgMatches) -> Options {
    let mut options = Options::new(environment());
    options.authfile = cli::value::<PathBuf>(words, "authfile");
    if !cli::value::<bool>(words, "tls-verify").unwrap_or(true) {
        options.verification = Verification::Off;
    }
    if !cli::flag(words, "quiet") {
        options.notice = Notice(Arc::new(output::warning));
    }
    options
}

/// Refuses an image that policy.json does not let be used.
pub fn check_policy(source: &Source, words: &ArgMatches) -> Result<()> {
    let options = without_login(words);
    let named = cli::value::<PathBuf>(words, "signature-policy");
    match Policy::load(&options.environment, &options.etc, named.as_deref())? {
        Some(policy) => Ok(policy.check(source)?),
        None => Ok(()),
    }
}

static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();

/// The user's environment, as it was when it was first asked for: in a user namespace everybody is root, whose
/// files are others.
pub fn environment() -> Environment {
    ENVIRONMENT.get_or_init(Environment::of_process).clone()
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
