//! `update`: its flags, or a document, to the limits that they name.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::Read;
use std::str::FromStr;

use creel_container::RdtSchemata;
use creel_plan::parse::parse_resources;
use creel_plan::spec::{BlockIo, Cpu, Memory, Pids, Resources};

use crate::flags::Words;
use crate::program::reason;

/// The limits that the command line names. With a document the other flags are ignored, as in runc.
pub fn resources(words: &Words<'_>) -> Result<Resources, String> {
    let resources = match words.value("resources") {
        Some(file) => parse_resources(&document(file)?).map_err(|invalid| invalid.to_string())?,
        None => of_flags(words)?,
    };
    if resources.memory.as_ref().is_some_and(|m| m.kernel.is_some() || m.kernel_tcp.is_some()) {
        tracing::warn!("kernel memory limits are ignored");
    }
    Ok(resources)
}

/// The lines for resctrl that the command line names, whether there is a document or not.
pub fn schemata(words: &Words<'_>) -> Result<RdtSchemata, String> {
    let line = |flag| parsed(words, flag, |value| Ok::<_, String>(value.to_owned()));
    Ok(RdtSchemata { l3_cache: line("l3-cache-schema")?, mem_bw: line("mem-bw-schema")? })
}

fn document(file: &OsStr) -> Result<String, String> {
    if file == "-" {
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        return read.map(|_| text).map_err(|error| format!("read standard input: {}", reason(&error)));
    }
    std::fs::read_to_string(file)
        .map_err(|error| format!("open {}: {}", file.to_string_lossy(), reason(&error)))
}

fn of_flags(words: &Words<'_>) -> Result<Resources, String> {
    Ok(Resources {
        memory: Some(Memory {
            limit: size(words, "memory")?,
            reservation: size(words, "memory-reservation")?,
            swap: size(words, "memory-swap")?,
            kernel: size(words, "kernel-memory")?,
            kernel_tcp: size(words, "kernel-memory-tcp")?,
            ..Memory::default()
        }),
        cpu: Some(Cpu {
            shares: number(words, "cpu-share")?,
            quota: number(words, "cpu-quota")?,
            burst: number(words, "cpu-burst")?,
            period: number(words, "cpu-period")?,
            realtime_runtime: number(words, "cpu-rt-runtime")?,
            realtime_period: number(words, "cpu-rt-period")?,
            cpus: text(words, "cpuset-cpus")?,
            mems: text(words, "cpuset-mems")?,
            idle: number(words, "cpu-idle")?,
        }),
        pids: Some(Pids { limit: words.number("pids-limit") }),
        block_io: Some(BlockIo { weight: weight(words)?, ..BlockIo::default() }),
        ..Resources::default()
    })
}

fn weight(words: &Words<'_>) -> Result<Option<u16>, String> {
    let weight = words.number("blkio-weight");
    let fits =
        |weight| u16::try_from(weight).map_err(|_| format!("invalid value for blkio-weight: {weight}"));
    weight.map(fits).transpose()
}

/// Parses the value of a flag, if it has one.
fn parsed<T, E: Display>(
    words: &Words<'_>,
    flag: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, String> {
    let Some(value) = words.value(flag) else { return Ok(None) };
    let value = value.to_string_lossy();
    parse(&value).map(Some).map_err(|why| format!("invalid value for {flag}: {value:?}: {why}"))
}

fn number<T: FromStr<Err = std::num::ParseIntError>>(
    words: &Words<'_>,
    flag: &str,
) -> Result<Option<T>, String> {
    parsed(words, flag, T::from_str)
}

fn text(words: &Words<'_>, flag: &str) -> Result<String, String> {
    Ok(parsed(words, flag, |value| Ok::<_, String>(value.to_owned()))?.unwrap_or_default())
}

/// Bytes; -1 is unlimited.
fn size(words: &Words<'_>, flag: &str) -> Result<Option<i64>, String> {
    parsed(words, flag, |value| if value == "-1" { Ok(-1) } else { bytes(value) })
}

/// A number, perhaps with a fraction, a blank and a binary unit: `64m`, `64MiB`, `1.5 GB`, `512b`.
/// docker's go-units reads them so, and people write them for every runtime.
fn bytes(text: &str) -> Result<i64, &'static str> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or("expected a size")?;
    let (number, unit) = text.split_at(end + 1);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().map_err(|_| "expected a size")?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err("unknown unit, expected b, k, m, g, t or p"),
    };
    let bytes = number * 2f64.powi(shift);
    if !(0.0..2f64.powi(63)).contains(&bytes) {
        return Err("expected a size from 0 to below 8192p");
    }
    #[allow(clippy::cast_possible_truncation, reason = "in the range of i64; a fraction of a byte is none")]
    Ok(bytes as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::ffi::OsString;

    use super::*;
    use crate::commands::Subcommand;
    use crate::program::Program;

    fn of(line: &str) -> Result<Resources, String> {
        let args: Vec<OsString> = line.split(' ').chain(["id"]).map(OsString::from).collect();
        let program = Program { argv0: String::new(), name: "creel" };
        resources(&Subcommand::Update.parse(&program, &args).unwrap().unwrap())
    }

    #[test]
    fn sizes_are_read_as_go_units_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 << 10),
            ("32Kb", 32 << 10),
            ("32KiB", 32 << 10),
            ("64m", 64 << 20),
            ("64 M", 64 << 20),
            ("32.5kB", 33_280),
            (".3kB", 307),
            ("32.", 32),
            ("1g", 1 << 30),
            ("2T", 2 << 40),
            ("1pib", 1 << 50),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in
            ["", "hello", "-32", "-1m", "32m m", "32x", "32bb", "32kk", "32kbb", " 32  m", "1e400", "9999p"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_name_what_they_change_and_nothing_else() {
        let resources = of("--cpu-quota -1").unwrap();
        assert_eq!(resources.cpu.unwrap(), Cpu { quota: Some(-1), ..Cpu::default() });
        assert_eq!(resources.memory.unwrap(), Memory::default());
        assert_eq!(resources.pids.unwrap(), Pids::default());
        assert_eq!(resources.block_io.unwrap(), BlockIo::default());
        let resources = of("--memory=64m --memory-swap -1 --pids-limit=-1 --blkio-weight 500").unwrap();
        let memory = resources.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(-1)));
        assert_eq!(resources.pids.unwrap().limit, Some(-1));
        assert_eq!(resources.block_io.unwrap().weight, Some(500));
        let cpu = of("--cpuset-cpus 0-1 --cpu-idle 1 --cpu-share 100 --cpu-burst 0").unwrap().cpu.unwrap();
        assert_eq!(
            (cpu.cpus.as_str(), cpu.idle, cpu.shares, cpu.burst),
            ("0-1", Some(1), Some(100), Some(0))
        );
    }

    #[test]
    fn wrong_values_name_their_flag() {
        for (line, message) in [
            ("--cpu-share x", r#"invalid value for cpu-share: "x": invalid digit found in string"#),
            ("--memory 12x", r#"invalid value for memory: "12x": unknown unit, expected b, k, m, g, t or p"#),
            ("-r /nonexistent", "open /nonexistent: ENOENT (no such file or directory)"),
        ] {
            assert_eq!(of(line).unwrap_err(), message);
        }
    }
}
