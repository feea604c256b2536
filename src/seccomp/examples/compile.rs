//! Compiles the profile on standard input, `.linux.seccomp` of a config.json, and reports the time
//! and the length of the filter. With `-d` lists the instructions instead.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use creel_plan::spec::Seccomp;
use creel_seccomp::{Program, compile};

const ROUNDS: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let profile: Seccomp = serde_json::from_str(&text)?;
    let mut out = std::io::stdout().lock();
    if std::env::args().nth(1).as_deref() == Some("-d") {
        return Ok(list(&mut out, &compile(&profile)?)?);
    }
    let mut times = Vec::with_capacity(ROUNDS);
    let start = Instant::now();
    let program = compile(&profile)?;
    let first = start.elapsed();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        compile(&profile)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
    writeln!(
        out,
        "{} instructions; compile: first {:.0} us, then median {:.0} us, minimum {:.0} us",
        program.filter.len(),
        micros(first),
        micros(times[ROUNDS / 2]),
        micros(times[0]),
    )?;
    Ok(())
}

fn list(out: &mut impl Write, program: &Program) -> std::io::Result<()> {
    for (at, instruction) in program.filter.iter().enumerate() {
        let (k, yes, no) =
            (instruction.k, at + 1 + usize::from(instruction.jt), at + 1 + usize::from(instruction.jf));
        match instruction.code {
            0x20 => writeln!(out, "{at:4} load {k}")?,
            0x54 => writeln!(out, "{at:4} and {k:#x}")?,
            0x05 => writeln!(out, "{at:4} jump {}", at + 1 + k as usize)?,
            0x06 => writeln!(out, "{at:4} return {k:#x}")?,
            0x15 => writeln!(out, "{at:4} == {k:#x} ? {yes} : {no}")?,
            0x25 => writeln!(out, "{at:4} > {k:#x} ? {yes} : {no}")?,
            _ => writeln!(out, "{at:4} >= {k:#x} ? {yes} : {no}")?,
        }
    }
    Ok(())
}
