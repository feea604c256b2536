//! Layers for the tests of this crate, written byte by byte, so that odd and broken ones can be made.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

/// Writes archives.
#[derive(Default)]
pub(crate) struct TarBuilder(Vec<u8>);

/// One PAX record; its length counts its own digits.
pub(crate) fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + 1;
    while length != bare + length.to_string().len() {
        length += 1;
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

/// The fields of a header, for entries that are not plain.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: u64,
    pub(crate) link: &'a str,
    pub(crate) device: (u32, u32),
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Fields { flag: b'0', mode: 0o644, uid: 0, gid: 0, mtime: 1_600_000_000, link: "", device: (0, 0) }
    }
}

fn put(block: &mut [u8], at: usize, text: &str) {
    block[at..at + text.len()].copy_from_slice(text.as_bytes());
}

fn sum(block: &mut [u8]) {
    put(block, 148, "        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    put(block, 148, &format!("{sum:06o}\0"));
}

impl TarBuilder {
    pub(crate) fn entry(&mut self, name: &str, fields: &Fields<'_>, body: &[u8]) {
        let mut block = [0; 512];
        put(&mut block, 0, name);
        put(&mut block, 100, &format!("{:07o}", fields.mode));
        put(&mut block, 108, &format!("{:07o}", fields.uid));
        put(&mut block, 116, &format!("{:07o}", fields.gid));
        put(&mut block, 124, &format!("{:011o}", body.len()));
        put(&mut block, 136, &format!("{:011o}", fields.mtime));
        block[156] = fields.flag;
        put(&mut block, 157, fields.link);
        put(&mut block, 257, "ustar\x0000");
        put(&mut block, 329, &format!("{:07o}", fields.device.0));
        put(&mut block, 337, &format!("{:07o}", fields.device.1));
        sum(&mut block);
        self.0.extend_from_slice(&block);
        self.body(body);
    }

    fn body(&mut self, body: &[u8]) {
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub(crate) fn raw(&mut self, flag: u8, name: &str, body: &[u8]) {
        self.entry(name, &Fields { flag, ..Fields::default() }, body);
    }

    pub(crate) fn file(&mut self, name: &str, body: &[u8]) {
        self.raw(b'0', name, body);
    }

    pub(crate) fn dir(&mut self, name: &str, mode: u32) {
        self.entry(name, &Fields { flag: b'5', mode, ..Fields::default() }, b"");
    }

    pub(crate) fn link(&mut self, flag: u8, name: &str, link: &str) {
        self.entry(name, &Fields { flag, link, mode: 0o777, ..Fields::default() }, b"");
    }

    fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
        records.iter().flat_map(|(key, value)| pax_record(key, value)).collect()
    }

    pub(crate) fn pax(&mut self, records: &[(&str, &[u8])]) {
        self.raw(b'x', "PaxHeaders/x", &Self::records(records));
    }

    pub(crate) fn global(&mut self, records: &[(&str, &[u8])]) {
        self.raw(b'g', "PaxHeaders/g", &Self::records(records));
    }

    pub(crate) fn long_name(&mut self, name: &str) {
        self.raw(b'L', "././@LongLink", format!("{name}\0").as_bytes());
    }

    pub(crate) fn gnu_sparse(&mut self, name: &str, size: u64, map: &[(u64, u64)], body: &[u8]) {
        let start = self.0.len();
        self.raw(b'S', name, body);
        let block = &mut self.0[start..start + 512];
        block[257..265].copy_from_slice(b"ustar  \0");
        for (i, (offset, length)) in map.iter().enumerate() {
            put(block, 386 + i * 24, &format!("{offset:011o}\0{length:011o}\0"));
        }
        put(block, 483, &format!("{size:011o}\0"));
        sum(block);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Whether owners and devices can be tested.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
