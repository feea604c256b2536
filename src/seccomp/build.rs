//! The numbers of system calls, as the libseccomp of the machine that builds creel has them:
//! `syscalls.rs` in OUT_DIR, which `arch.rs` includes. So creel itself links no C library.

#![allow(clippy::unwrap_used, reason = "a build script fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use libseccomp::{ScmpArch, ScmpSyscall, ScmpVersion};

/// Names of the tables and architectures of the specification.
const ARCHITECTURES: [(&str, ScmpArch); 18] = [
    ("AARCH64", ScmpArch::Aarch64),
    ("ARM", ScmpArch::Arm),
    ("LOONGARCH64", ScmpArch::Loongarch64),
    ("MIPS", ScmpArch::Mips),
    ("MIPS64", ScmpArch::Mips64),
    ("MIPS64N32", ScmpArch::Mips64N32),
    ("MIPSEL", ScmpArch::Mipsel),
    ("MIPSEL64", ScmpArch::Mipsel64),
    ("MIPSEL64N32", ScmpArch::Mipsel64N32),
    ("PPC", ScmpArch::Ppc),
    ("PPC64", ScmpArch::Ppc64),
    ("PPC64LE", ScmpArch::Ppc64Le),
    ("RISCV64", ScmpArch::Riscv64),
    ("S390", ScmpArch::S390),
    ("S390X", ScmpArch::S390X),
    ("X32", ScmpArch::X32),
    ("X86", ScmpArch::X86),
    ("X86_64", ScmpArch::X8664),
];

/// Where numbers begin: x32's bit; MIPS O32, 64 and N32; the calls that are ARM's own.
const BASES: [i32; 6] = [0, 1 << 30, 4000, 5000, 6000, 0x0f_0000];
/// No kernel has as many.
const CALLS: i32 = 1000;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let name = |number: i32, arch: ScmpArch| ScmpSyscall::from(number).get_name_by_arch(arch).ok();
    let numbers = || BASES.iter().flat_map(|base| *base..*base + CALLS);
    let names: BTreeSet<String> =
        ARCHITECTURES.iter().flat_map(|(_, arch)| numbers().filter_map(|n| name(n, *arch))).collect();

    let mut text = String::new();
    let version = ScmpVersion::current().unwrap();
    let (major, minor, micro) = (version.major, version.minor, version.micro);
    writeln!(text, "/// Of libseccomp.").unwrap();
    writeln!(text, "pub const VERSION: &str = \"{major}.{minor}.{micro}\";").unwrap();
    writeln!(text, "pub const COUNT: usize = {};", names.len()).unwrap();
    let joined: Vec<&str> = names.iter().map(String::as_str).collect();
    writeln!(text, "pub static NAMES: &str = \"{}\";", joined.concat()).unwrap();
    let mut end = 0;
    let ends: Vec<String> = names
        .iter()
        .map(|name| {
            end += name.len();
            end.to_string()
        })
        .collect();
    writeln!(text, "pub static ENDS: [u16; COUNT] = [{}];", ends.join(",")).unwrap();
    for (table, arch) in ARCHITECTURES {
        let number = |name: &String| ScmpSyscall::from_name_by_arch(name, arch).map_or(i32::MIN, i32::from);
        let all: Vec<String> = names.iter().map(|name| number(name).to_string()).collect();
        writeln!(text, "pub static {table}: [i32; COUNT] = [{}];", all.join(",")).unwrap();
    }
    std::fs::write(Path::new(&std::env::var_os("OUT_DIR").unwrap()).join("syscalls.rs"), text).unwrap();
}
