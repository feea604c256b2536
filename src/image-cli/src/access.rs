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

/// Which end of a copy a registry is. Where there is one registry only it is the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// What is read.
    Source,
    /// What is written.
    Destination,
}

impl End {
    fn flag(self, name: &str) -> String {
        match self {
            End::Source => format!("src-{name}"),
            End::Destination => format!("dest-{name}"),
        }
    }

    /// What the words say of this end alone, or else of both.
    fn value<T: Clone + Send + Sync + 'static>(self, words: &ArgMatches, name: &str) -> Option<T> {
        cli::value(words, &self.flag(name)).or_else(|| cli::value(words, name))
    }
}

/// Makes the client that the words ask for. It connects to nothing yet.
pub fn client(words: &ArgMatches, end: End) -> Result<Client> {
    let mut options = options(words, end);
    options.login = login_for(words, end)?;
    Ok(Client::new(options)?)
}

/// The same for a registry that the command line's credential is not meant for.
pub fn client_without_login(words: &ArgMatches) -> Result<Client> {
    Ok(Client::new(options(words, End::Source))?)
}

fn options(words: &ArgMatches, end: End) -> Options {
    let mut options = Options::new(environment());
    options.authfile = end.value::<PathBuf>(words, "authfile");
    if !end.value::<bool>(words, "tls-verify").unwrap_or(true) {
        options.verification = Verification::Off;
    }
    if !cli::flag(words, "quiet") {
        options.notice = Notice(Arc::new(output::warning));
    }
    options
}

/// Refuses an image that policy.json does not let be used.
pub fn check_policy(source: &Source, words: &ArgMatches) -> Result<()> {
    let options = options(words, End::Source);
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

/// The flags of a copy's credentials that do not say for which end.
const BARE: [&str; 4] = ["creds", "username", "password", "password-stdin"];

fn bare_login(words: &ArgMatches) -> Option<&'static str> {
    BARE.into_iter().find(|name| given(words, name))
}

/// The flag that gives a credential for what is read, if there is one.
pub fn login_flag(words: &ArgMatches) -> Option<&'static str> {
    ["src-creds", "src-username"].into_iter().find(|name| given(words, name)).or_else(|| bare_login(words))
}

fn given(words: &ArgMatches, name: &str) -> bool {
    use clap::parser::ValueSource;
    matches!(words.try_contains_id(name), Ok(true))
        && words.value_source(name) == Some(ValueSource::CommandLine)
}

/// Refuses credentials of a copy that nobody, or more than one registry, would get.
pub fn check_ends(from: &Source, to: &Source, words: &ArgMatches) -> Result<()> {
    let host = |source: &Source| match source {
        Source::Registry(reference) => Some(reference.registry().to_owned()),
        Source::Stdin
        | Source::Layout { .. }
        | Source::OciArchive { .. }
        | Source::DockerArchive { .. }
        | Source::Dir { .. } => None,
    };
    let hosts = [(End::Source, host(from)), (End::Destination, host(to))];
    let own = |end: End| {
        let names = ["creds", "username", "password", "authfile", "tls-verify"].map(|name| end.flag(name));
        names.into_iter().find(|name| given(words, name))
    };
    for (end, host) in &hosts {
        if let (Some(flag), None) = (own(*end), host) {
            bail!("--{flag}: {} is no registry", if *end == End::Source { from } else { to });
        }
    }
    let Some(bare) = bare_login(words) else { return Ok(()) };
    if let Some(flag) = ["src-creds", "src-username", "dest-creds", "dest-username"]
        .into_iter()
        .find(|name| given(words, name))
    {
        bail!("--{bare} and --{flag}: write --src-creds and --dest-creds");
    }
    match hosts.map(|(_, host)| host) {
        [Some(from), Some(to)] if from != to => bail!(
            "--{bare}: it is not said for which of {from} and {to}; write --src-creds or --dest-creds, so that neither gets the other's"
        ),
        [None, None] => bail!("--{bare}: neither {from} nor {to} is a registry"),
        _ => Ok(()),
    }
}

/// `--creds`, or `--username` with `--password` or `--password-stdin`.
pub fn login(words: &ArgMatches) -> Result<Option<Login>> {
    login_of(words, "")
}

/// The same for one end of a copy.
fn login_for(words: &ArgMatches, end: End) -> Result<Option<Login>> {
    match login_of(words, &end.flag(""))? {
        Some(login) => Ok(Some(login)),
        None => login(words),
    }
}

fn login_of(words: &ArgMatches, prefix: &str) -> Result<Option<Login>> {
    let text = |name: &str| cli::value::<String>(words, &format!("{prefix}{name}"));
    if let Some(creds) = text("creds") {
        let (user, password) =
            creds.split_once(':').ok_or_else(|| anyhow!("--{prefix}creds is USER:PASSWORD"))?;
        return Ok(Some(Login::from((user, password))));
    }
    let Some(user) = text("username") else {
        if given(words, &format!("{prefix}password"))
            || (prefix.is_empty() && cli::flag(words, "password-stdin"))
        {
            bail!("--{prefix}password: name the user that it is of with --{prefix}username");
        }
        return Ok(None);
    };
    let password = match text("password") {
        Some(password) => password,
        None if prefix.is_empty() && cli::flag(words, "password-stdin") => piped_password()?,
        None if prefix.is_empty() => {
            bail!("--username needs a password: pipe it in with --password-stdin")
        }
        None => bail!("--{prefix}username needs --{prefix}password"),
    };
    Ok(Some(Login::from((user.as_str(), password.as_str()))))
}

/// Standard input, which can be read once, and may be asked for by both ends of a copy.
fn piped_password() -> Result<String> {
    static READ: OnceLock<String> = OnceLock::new();
    if let Some(password) = READ.get() {
        return Ok(password.clone());
    }
    let mut text = String::new();
    std::io::stdin().take(64 << 10).read_to_string(&mut text).context("read the password")?;
    let password = text.trim_end_matches(['\r', '\n']).to_owned();
    Ok(READ.get_or_init(|| password).clone())
}
