//! The command line. Flags have the names that docker's and podman's users know.

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// The command that ends as a container.
pub const RUN: &str = "pull-and-run";

/// What the poststop hook of a container calls.
pub const RELEASE: &str = "release";

/// The value of an option.
pub fn value<T: Clone + Send + Sync + 'static>(words: &ArgMatches, name: &str) -> Option<T> {
    words.try_get_one::<T>(name).ok().flatten().cloned()
}

/// All values of an option.
pub fn values(words: &ArgMatches, name: &str) -> Vec<String> {
    words.try_get_many::<String>(name).ok().flatten().map(|all| all.cloned().collect()).unwrap_or_default()
}

/// Whether a switch is on.
pub fn flag(words: &ArgMatches, name: &str) -> bool {
    value::<bool>(words, name).unwrap_or(false)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn option(name: &'static str, kind: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(kind).help(help).allow_hyphen_values(true)
}

fn list(name: &'static str, kind: &'static str, help: &'static str) -> Arg {
    option(name, kind, help).action(ArgAction::Append)
}

fn path(name: &'static str, help: &'static str) -> Arg {
    option(name, "PATH", help).value_parser(ValueParser::path_buf())
}

/// A switch that may be given a value, `--rm=false`.
fn boolean(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("BOOL")
        .help(help)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(value_parser!(bool))
}

fn image() -> Arg {
    Arg::new("image").value_name("IMAGE").required(true).help(
        "[docker://]NAME[:TAG][@DIGEST], oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF], \
         dir:DIR, or - for an archive on standard input",
    )
}

fn destination() -> Arg {
    Arg::new("destination").value_name("DESTINATION").help(
        "docker://NAME[:TAG], oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:NAME:TAG] or dir:DIR; \
         FILE may be - for standard output",
    )
}

/// How an image goes somewhere.
fn sending() -> [Arg; 4] {
    [
        switch("all", "all platforms of an index, and the index itself"),
        switch("referrers", "what refers to the image too: signatures, SBOMs"),
        option(
            "chunk-size",
            "BYTES",
            "upload in chunks of this size, such as 10m (default: each blob at once)",
        ),
        path("digestfile", "file to write the digest of the manifest to"),
    ]
}

/// How a registry is reached.
fn access() -> [Arg; 6] {
    [
        option("creds", "USER:PASSWORD", "credential for the registry"),
        option("username", "USER", "user for the registry").short('U'),
        option("password", "PASSWORD", "password; seen by others in the list of processes"),
        switch("password-stdin", "read the password from standard input"),
        path("authfile", "the only file to look for credentials in"),
        boolean("tls-verify", "whether to check certificates (default: as registries.conf says)"),
    ]
}

/// The same for one end of a copy, which may be another registry than the other.
fn access_of_ends() -> [Arg; 10] {
    [
        option("src-creds", "USER:PASSWORD", "credential for the registry to read"),
        option("src-username", "USER", "user for it"),
        option("src-password", "PASSWORD", "password for it; seen by others in the list of processes"),
        path("src-authfile", "the only file to look for its credentials in"),
        boolean("src-tls-verify", "whether to check its certificates"),
        option("dest-creds", "USER:PASSWORD", "credential for the registry to write"),
        option("dest-username", "USER", "user for it"),
        option("dest-password", "PASSWORD", "password for it; seen by others in the list of processes"),
        path("dest-authfile", "the only file to look for its credentials in"),
        boolean("dest-tls-verify", "whether to check its certificates"),
    ]
}

/// How a pull goes and what it tells.
fn pulling() -> [Arg; 4] {
    [
        option("platform", "OS/ARCH[/VARIANT]", "the platform to take (default: this machine's)"),
        switch("quiet", "tell nothing but errors").short('q'),
        option("progress", "KIND", "auto (default), plain, json or none")
            .value_parser(["auto", "plain", "json", "none"]),
        switch("store-blobs", "keep the compressed layers too"),
    ]
}

/// Which images may be used.
fn policy() -> Arg {
    path("signature-policy", "file that says which images may be used (default: policy.json of containers)")
}

fn subcommand(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).bin_name(format!("creel {name}"))
}

/// The same where nothing goes through the store.
fn without_store() -> impl Iterator<Item = Arg> {
    pulling().into_iter().filter(|arg| arg.get_id() != "store-blobs")
}

fn artifact() -> Command {
    let kind =
        || option("artifact-type", "TYPE", "type of the artifact, such as application/vnd.example.sbom+json");
    let platform = || without_store();
    subcommand("artifact", "push, pull and list files of any type, and what refers to an image")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(
            subcommand("artifact push", "push files as an artifact")
                .name("push")
                .arg(
                    Arg::new("destination")
                        .value_name("DESTINATION")
                        .required(true)
                        .help("[docker://]NAME[:TAG] or oci:DIR[:REF]; with --subject it needs no tag"),
                )
                .arg(
                    Arg::new("file")
                        .value_name("FILE[:TYPE]")
                        .num_args(0..)
                        .help("files, with their media types (default: application/octet-stream)"),
                )
                .arg(kind().required(true))
                .arg(option(
                    "subject",
                    "NAME",
                    "tag or digest, in the same repository, that the artifact refers to",
                ))
                .arg(option("config", "FILE[:TYPE]", "a configuration (default: the empty one)"))
                .arg(list("annotation", "KEY=VALUE", "add an annotation"))
                .arg(option(
                    "chunk-size",
                    "BYTES",
                    "upload in chunks of this size (default: each blob at once)",
                ))
                .arg(path("digestfile", "file to write the digest of the manifest to"))
                .args(platform().filter(|arg| arg.get_id() != "platform"))
                .args(access()),
        )
        .subcommand(
            subcommand("artifact pull", "fetch the files of an artifact")
                .name("pull")
                .arg(image())
                .arg(path("output", "directory for the files (default: the current one)").short('o'))
                .arg(switch("force", "replace files that are there"))
                .arg(policy())
                .args(platform())
                .args(access()),
        )
        .subcommand(
            subcommand("artifact ls", "list what refers to an image or an artifact")
                .name("ls")
                .alias("list")
                .arg(image())
                .arg(kind())
                .arg(option("format", "FORMAT", "table (default) or json").value_parser(["table", "json"]))
                .args(access()),
        )
}

/// What moves images from one place to another.
fn transfers() -> [Command; 2] {
    [
        subcommand("copy", "copy an image between registries, layouts and archives")
            .arg(image())
            .arg(destination().required(true))
            .args(sending())
            .args(without_store())
            .arg(policy())
            .args(access())
            .args(access_of_ends()),
        subcommand("push", "send an image of the store, or of files, to a registry")
            .arg(Arg::new("image").value_name("IMAGE").required(true).help(
                "name or start of the digest of an image of the store, or an image in files, such as oci:DIR",
            ))
            .arg(destination())
            .args(sending())
            .args(without_store())
            .arg(policy())
            .args(access()),
    ]
}

/// All commands, or [`RUN`] alone where that is the one: the other tables take time that every start of a
/// container would pay.
pub fn command_for(argv: &[OsString]) -> Command {
    if subcommand_of(argv).is_some_and(|name| name == RUN) { base().subcommand(run()) } else { command() }
}

/// The first word that is neither a global option nor its value, as `creel` calls this program.
fn subcommand_of(argv: &[OsString]) -> Option<&OsString> {
    let mut words = argv.iter().skip(1);
    loop {
        let word = words.next()?;
        match word.to_str() {
            Some("--store" | "--runtime-arg" | "--state-root") => words.next().map(drop)?,
            Some(text) if text.starts_with('-') => {}
            _ => return Some(word),
        }
    }
}

fn base() -> Command {
    Command::new("creel-image")
        .bin_name("creel")
        .about("creel's commands around images")
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg(path("store", "directory of images and containers").global(true))
        .arg(list("runtime-arg", "WORD", "").hide(true))
        .arg(path("state-root", "").hide(true))
}

/// All commands.
pub fn command() -> Command {
    base()
        .subcommand(
            subcommand("pull", "fetch an image into the store")
                .arg(image())
                .args(pulling())
                .arg(policy())
                .args(access())
                .arg(path("digestfile", "file to write the digest of the manifest to")),
        )
        .subcommand(run())
        .subcommand(image_commands())
        .subcommand(
            subcommand("unpack", "unpack an image into a bundle that any runtime runs")
                .arg(image())
                .arg(
                    Arg::new("bundle")
                        .value_name("BUNDLE")
                        .required(true)
                        .value_parser(ValueParser::path_buf()),
                )
                .args(without_store())
                .arg(policy())
                .args(access()),
        )
        .subcommands(transfers())
        .subcommand(artifact())
        .subcommand(subcommand("tags", "list the tags of a repository").arg(image()).args(access()))
        .subcommand(
            subcommand("inspect", "show an image where it lies, without a pull")
                .arg(image())
                .arg(switch("raw", "print the manifest or index, byte by byte"))
                .arg(switch("config", "print the image's configuration, byte by byte"))
                .arg(option(
                    "platform",
                    "OS/ARCH[/VARIANT]",
                    "the platform to take (default: this machine's)",
                ))
                .args(access()),
        )
        .subcommand(
            subcommand("login", "store a credential, where podman and docker find it")
                .arg(registry())
                .arg(switch(
                    "get-login",
                    "print the user that is logged in and where that is written, and do nothing else",
                ))
                .args(access()),
        )
        .subcommand(
            subcommand("logout", "remove a stored credential")
                .arg(registry())
                .arg(path("authfile", "the only file to look for credentials in")),
        )
}

fn registry() -> Arg {
    Arg::new("registry")
        .value_name("REGISTRY[/NAME]")
        .help("host or host:port, or what is below a name there (default: docker.io)")
}

fn image_commands() -> Command {
    let known =
        || Arg::new("name").value_name("IMAGE").required(true).help("name, or the start of the digest");
    subcommand("image", "list, show, verify and remove images of the store")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(
            subcommand("ls", "list the images of the store")
                .alias("list")
                .arg(option("format", "FORMAT", "table (default) or json").value_parser(["table", "json"]))
                .arg(switch("quiet", "show only digests").short('q')),
        )
        .subcommand(subcommand("inspect", "show an image of the store, as JSON").arg(known()))
        .subcommand(
            subcommand("rm", "remove names of images; prune frees their space")
                .arg(known().num_args(1..).action(ArgAction::Append)),
        )
        .subcommand(
            subcommand("verify", "look whether the store has what was pulled, byte by byte")
                .arg(
                    Arg::new("name")
                        .value_name("IMAGE")
                        .num_args(0..)
                        .action(ArgAction::Append)
                        .help("names, or starts of digests (default: all images)"),
                )
                .arg(switch("repair", "fetch what is damaged again and put it in its place"))
                .arg(switch("offline", "compare only with what the store has (see pull --store-blobs)"))
                .args(without_store().filter(|arg| arg.get_id() != "platform"))
                .args(access()),
        )
        .subcommand(subcommand("prune", "remove what no name and no container needs").arg(switch(
            "kept",
            "also what containers with --keep wrote that \"creel delete\" does not know any more",
        )))
}

fn run() -> Command {
    subcommand(RUN, "run a command in a new container of an image, pulled if need be")
        .override_usage(format!("creel {RUN} [OPTIONS] IMAGE [COMMAND [ARGUMENT...]]"))
        // -h is for help alone; docker has it for --hostname in one command only.
        .args(pulling())
        .arg(policy())
        .args(access())
        .args([
            option("pull", "POLICY", "missing (default), always, never or newer")
                .value_parser(["missing", "always", "never", "newer"]),
            option("name", "ID", "id of the container (default: a random one)"),
            switch("detach", "return when the container runs").short('d'),
            switch("interactive", "keep standard input open").short('i'),
            switch("tty", "give the process a terminal").short('t'),
            boolean("rm", "remove the container when it has ended (default; --rm=false is --keep)"),
            switch("keep", "keep the container and its writable layer until creel delete"),
            list("env", "NAME[=VALUE]", "set a variable; without a value, take over the caller's").short('e'),
            list("env-file", "FILE", "read variables from a file, one a line"),
            list("volume", "SOURCE:DEST[:OPTIONS]", "bind a path of the machine into the container")
                .short('v'),
            list("mount", "type=...,src=...,dst=...", "mount of type bind or tmpfs"),
            list("tmpfs", "DEST[:OPTIONS]", "mount a tmpfs"),
            option("workdir", "DIR", "working directory").short('w'),
            option("user", "USER[:GROUP]", "user and group, names or numbers").short('u'),
            option("entrypoint", "COMMAND", "replaces the image's; a JSON array, or one word"),
            option("hostname", "NAME", "host name of the container (default: its id)"),
            option("network", "NETWORK", "none (default), host, pasta or the path of a network namespace")
                .visible_alias("net"),
            switch("read-only", "mount the root read-only"),
            switch("privileged", "all capabilities and devices, nothing masked, no filter"),
            list("cap-add", "CAPABILITY", "add a capability"),
            list("cap-drop", "CAPABILITY", "drop a capability, or ALL"),
            list("security-opt", "OPTION", "no-new-privileges, seccomp=FILE, seccomp=unconfined, apparmor=PROFILE, systempaths=unconfined"),
            list("annotation", "KEY=VALUE", "add an annotation"),
            option("memory", "BYTES", "limit of memory; b, k, m and g are units").short('m'),
            option("cpus", "NUMBER", "limit of CPU time, such as 1.5"),
            option("pids-limit", "N", "most processes; -1 for no limit"),
            option("pid-file", "PATH", "file to write the pid of the process to"),
            option("cgroup-path", "PATH", "cgroup of the container (default: its id)"),
        ])
        .arg(image())
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .help("what to run in place of the image's own")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true),
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_tables_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_end_at_the_image() {
        let words = ["creel-image", RUN, "-it", "-e", "A=1", "--rm", "image", "sh", "-c", "x", "--name", "y"];
        let matches = command().try_get_matches_from(words).unwrap();
        let words = matches.subcommand().unwrap().1;
        assert!(flag(words, "interactive") && flag(words, "tty"));
        assert_eq!(value::<String>(words, "image").unwrap(), "image");
        assert_eq!(values(words, "command"), ["sh", "-c", "x", "--name", "y"]);
        assert_eq!(value::<String>(words, "name"), None);
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(command().try_get_matches_from(["creel-image", RUN, "--link", "a", "image"]).is_err());
    }
}
