//! `unpack`: an image as a bundle of its own, which any runtime runs; what umoci does.
//!
//! Nothing goes through the store. The layers are applied in order to one directory beside the bundle, which
//! is renamed in when all of them were right. For an ordinary user all files are the user's, and config.json has a
//! user namespace in which the user is root.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ArgMatches;
use creel_image_lib::choose::choose;
use creel_image_lib::config::ImageConfig;
use creel_image_lib::descriptor::Descriptor;
use creel_image_lib::digest::Digest;
use creel_image_lib::root::Root;
use creel_image_lib::runtime_config::{self, Databases, IdMaps, IdRange, Run, runtime_config};
use creel_image_lib::unpack::{Expected, Limits, Tree, remove_all, unpack_layer};
use creel_image_lib::volume;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use serde_json::{Value, json};

use crate::left_out::LeftOut;
use crate::origin::{self, Origin};
use crate::progress::{LayerProgress, PULL, Progress};
use crate::pull::{self, check_suits};
use crate::run::user_namespace;
use crate::{cli, names, output, setup};

/// `creel unpack`
pub fn command(_globals: &ArgMatches, words: &ArgMatches) -> Result<()> {
    let bundle: PathBuf = cli::value(words, "bundle").unwrap_or_default();
    let bundle = std::path::absolute(&bundle).with_context(|| bundle.display().to_string())?;
    if bundle.symlink_metadata().is_ok() {
        bail!("{}: is there already; name a bundle that is to be made", bundle.display());
    }
    let parent = bundle.parent().context("the bundle needs a directory above it")?.to_owned();
    let aside = Aside::make(&parent, &bundle)?;
    unpack(words, &parent, &aside.0)?;
    rustix::fs::renameat_with(CWD, &aside.0, CWD, &bundle, RenameFlags::NOREPLACE)
        .with_context(|| format!("rename {}", bundle.display()))
}

/// A directory that goes away unless it is renamed.
struct Aside(PathBuf);

impl Aside {
    fn make(parent: &Path, bundle: &Path) -> Result<Aside> {
        let name = bundle.file_name().context("the bundle needs a name")?.to_string_lossy();
        let path = parent.join(format!(".{name}.{}.partial", std::process::id()));
        rustix::fs::mkdir(&path, Mode::RWXU).with_context(|| format!("mkdir {}", path.display()))?;
        Ok(Aside(path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(errno) = remove_all(CWD, self.0.as_os_str().as_bytes()) {
            output::warning(&format!("{}: {errno}", self.0.display()));
        }
    }
}

fn unpack(words: &ArgMatches, spool: &Path, into: &Path) -> Result<()> {
    let source = names::resolve(&cli::value::<String>(words, "image").unwrap_or_default(), words)?;
    let name = origin::name(&source);
    let platform = pull::platform(words)?;
    let origin = Origin::open_to_use(&source, words, spool).with_context(|| name.clone())?;
    let progress = Progress::new(words, PULL, &name);
    let target = origin.target().with_context(|| name.clone())?;
    let mut fetch = |entry: &_| origin.manifest(entry).map_err(|error| format!("{error:#}"));
    let chosen = choose(target.bytes, target.media_type.as_deref(), &platform, &mut fetch)
        .with_context(|| name.clone())?;
    chosen.manifest.check_image().with_context(|| name.clone())?;
    let config = ImageConfig::parse(&origin.config(&chosen.manifest.config).with_context(|| name.clone())?)?;
    check_suits(&config, &platform).with_context(|| name.clone())?;
    let (layers, diff_ids) = (&chosen.manifest.layers, &config.rootfs.diff_ids);
    if layers.len() != diff_ids.len() {
        bail!("{name}: the manifest has {} layers, the configuration names {}", layers.len(), diff_ids.len());
    }
    let size = layers.iter().map(|layer| layer.size).sum();
    setup::check_room(spool, size, "free some space or name another place")?;
    let rootfs = into.join("rootfs");
    rustix::fs::mkdir(&rootfs, Mode::from_raw_mode(0o755)).with_context(|| rootfs.display().to_string())?;
    let open = || {
        rustix::fs::open(&rootfs, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| rootfs.display().to_string())
    };
    let mut tree = Tree::new(open()?, user_namespace::here()?.flat())?;
    let mut jobs = Vec::new();
    for (descriptor, diff_id) in layers.iter().zip(diff_ids) {
        jobs.push((descriptor, diff_id, progress.layer(descriptor)));
    }
    let mut left_out = LeftOut::default();
    let mut apply = |(descriptor, diff_id, layer): (&Descriptor, &Digest, LayerProgress)| -> Result<u64> {
        let digest = descriptor.digest()?;
        let from = || format!("{name}: layer {}", digest.short());
        let source = layer.reader(origin.layer(descriptor).with_context(from)?);
        let expected = Expected { digest: &digest, size: descriptor.size, diff_id };
        let unpacked = unpack_layer(source, expected, &Limits::default(), &mut tree).with_context(from)?;
        layer.done();
        left_out.add(unpacked.applied.skipped_count, unpacked.applied.skipped);
        Ok(unpacked.bytes)
    };
    let bytes: u64 = progress.during(|| jobs.into_iter().map(&mut apply).sum::<Result<u64>>())?;
    let (first, count) = tree.finish()?;
    left_out.add(count, first);
    left_out.warn(&name);
    for place in runtime_config::volumes(&config, &Run::default()) {
        volume::make_place(open()?, &place).with_context(|| format!("{name}: volume {place}"))?;
    }
    let users = Root::open(&rootfs)?.users()?;
    let mut run = Run::default();
    if config.config.entrypoint.is_empty() && config.config.cmd.is_empty() {
        // A bundle is there to be edited; a config.json without a command is none.
        run.args = vec!["sh".to_owned()];
    }
    let value = convert(&config, run, &users)?;
    let path = into.join("config.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&value)?).with_context(|| path.display().to_string())?;
    progress.finish(&chosen.digest, bytes, layers.len());
    Ok(())
}

/// config.json for whoever unpacks.
fn convert(image: &ImageConfig, mut run: Run, users: &Databases) -> Result<Value> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        run.within = user_namespace::maps()?;
        return Ok(runtime_config(image, &run, users, "rootfs")?);
    }
    let own = |host: u32| vec![IdRange { container: 0, host, size: 1 }];
    run.within = Some(IdMaps { uids: own(uid.as_raw()), gids: own(gid.as_raw()) });
    let mut value = match runtime_config(image, &run, users, "rootfs") {
        Err(error @ runtime_config::Error::NotMapped(_)) => {
            output::warning(&format!("{error}: config.json has root, who is you"));
            run.user = Some("0:0".to_owned());
            runtime_config(image, &run, users, "rootfs")?
        }
        other => other?,
    };
    if let Some(namespaces) = value["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "user"}));
    }
    let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
    value["linux"]["uidMappings"] = map(uid.as_raw());
    value["linux"]["gidMappings"] = map(gid.as_raw());
    Ok(value)
}
