//! Reading the files of one directory. What the kernel does not have counts nothing; a file that
//! does not read as the kernel writes it is an error that names it.

use rustix::io::Errno;

use crate::dir;
use crate::error::Error;
use crate::record::CgroupDir;

/// The files of a directory, for reading.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    dir: &'a CgroupDir,
    /// Files without permission count nothing.
    forgiving: bool,
}

impl<'a> Files<'a> {
    pub fn of(dir: &'a CgroupDir, forgiving: bool) -> Self {
        Files { dir, forgiving }
    }

    /// The text of a file; `None` where there is none. Pressure files say EOPNOTSUPP when the kernel
    /// was booted without `psi=1`.
    pub fn text(&self, file: &str) -> Result<Option<String>, Error> {
        let read = self
            .dir
            .fd()
            .and_then(|fd| dir::read(fd, file).map_err(|errno| self.dir.error("read", file, errno)));
        match read {
            Ok(text) => Ok(Some(text)),
            Err(error) => match error.errno() {
                Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
                Some(Errno::ACCESS | Errno::PERM) if self.forgiving => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// A file with one number; `max` is the highest one.
    pub fn number(&self, file: &str) -> Result<Option<u64>, Error> {
        self.one(file, |text| if text == "max" { Some(u64::MAX) } else { unsigned(text) })
    }

    /// A file with one number that may be negative.
    pub fn signed(&self, file: &str) -> Result<Option<i64>, Error> {
        self.one(file, |text| text.parse().ok())
    }

    fn one<T>(&self, file: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        parse(text.trim()).map(Some).ok_or_else(|| self.malformed(file, &text))
    }

    /// A file of `key value` lines.
    pub fn pairs(&self, file: &str) -> Result<Option<Vec<(String, u64)>>, Error> {
        self.lines(file, |line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), unsigned(value)?))
        })
    }

    /// A file that is read line by line.
    pub fn lines<T>(&self, file: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<Vec<T>>, Error> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        let parsed = text.lines().map(|line| parse(line).ok_or_else(|| self.malformed(file, line)));
        parsed.collect::<Result<_, _>>().map(Some)
    }

    pub fn malformed(&self, file: &str, found: &str) -> Error {
        Error::Malformed { path: self.dir.file(file), found: found.to_owned() }
    }
}

/// A count. Some counters of the memory controller turn negative for a moment, which is none.
pub(super) fn unsigned(text: &str) -> Option<u64> {
    match text.strip_prefix('-') {
        Some(digits) => (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(0),
        None => text.parse().ok(),
    }
}

/// Page sizes as the files name them: `hugepages-2048kB` is `2MB`.
pub(super) fn page_size(directory: &str) -> Option<String> {
    let kib: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    })
}

/// The page sizes of this kernel.
pub(super) fn page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    entries.flatten().filter_map(|entry| page_size(entry.file_name().to_str()?)).collect()
}
