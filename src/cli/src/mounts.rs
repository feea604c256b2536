//! `mounts add|remove ID FILE`: crun's command.

use creel_container::Runtime;

use crate::flags::Words;
use crate::globals::absolute;
use crate::program::Failure;
use crate::request;

/// Runs it. FILE has an array like `.mounts` of config.json.
pub fn run(runtime: &Runtime, words: &Words<'_>) -> Result<u8, Failure> {
    let operands = &words.operands;
    let verb = operands.first().map(|verb| verb.to_string_lossy()).unwrap_or_default();
    let failed = |why: String| Failure::new(format!("mounts {verb}: {why}"));
    let command = match verb.as_ref() {
        "add" => creel_container::add_mounts,
        "remove" => creel_container::remove_mounts,
        _ => return Err(failed(format!("unknown command {verb:?}, expected add or remove"))),
    };
    let id = request::id(operands.get(1..).unwrap_or_default()).map_err(failed)?;
    let failed = |why: String| Failure::new(format!("mounts {verb} {id}: {why}"));
    let file = absolute(operands.get(2).copied().unwrap_or_default()).map_err(failed)?;
    command(runtime, &id, &file).map_err(|error| failed(error.to_string()))?;
    Ok(0)
}
